"""The network behind scikit-learn's interface, for its cross-validation, pipelines and searches."""

from collections.abc import Mapping

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from stages.base.splits import Split
from stages.training import trainer
from stages.training.trainer import Subset, Trainer


class NetworkClassifier(ClassifierMixin, BaseEstimator):
    """A classifier that trains the network of stages/training/model.py.

    Args:
        hyperparameters: by name, the fields of `Hyperparameters`.
        epochs, batch_size, seed: as of `Trainer`.

    After `fit`: `classes_` (the labels, sorted), `checkpoint_` (a `trainer.Checkpoint`) and `network_` (a Keras model).
    """

    def __init__(self, hyperparameters: Mapping[str, object], *, epochs: int = 5, batch_size: int = 32, seed: int = 0):
        self.hyperparameters = hyperparameters
        self.epochs = epochs
        self.batch_size = batch_size
        self.seed = seed

    def fit(self, inputs: np.ndarray, labels: np.ndarray) -> "NetworkClassifier":
        """Train on `inputs` (n, ...) and their `labels` (n,), of any type that can be sorted."""
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        data = Split(np.asarray(inputs, np.float32), numbers.astype(np.int32))
        self.network_ = trainer.build(self.hyperparameters, data.inputs.shape[1:], data.outputs, self.seed)
        training = Trainer(self.network_, Subset.of(data), batch_size=self.batch_size, seed=self.seed)
        self.checkpoint_ = training.run(self.epochs)
        return self

    def predict_proba(self, inputs: np.ndarray) -> np.ndarray:
        """Return the probabilities (n, classes) float32, in the order of `classes_`."""
        return trainer.predictor(self.network_)(np.asarray(inputs, np.float32))

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Return the most probable label of each example, (n,)."""
        return self.classes_[self.predict_proba(inputs).argmax(axis=1)]
