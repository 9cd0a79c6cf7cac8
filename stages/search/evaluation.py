"""What a trial comes to: `Holdout` scores it on the validation split, `CrossValidation` on stratified folds.

Both are functions of (hyperparameters, epochs) and count in `epochs_trained` what they trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold

from stages import training
from stages.search.classifier import NetworkClassifier
from stages.splits import Split
from stages.training import EarlyStopping, State


@dataclass(frozen=True)
class Evaluation:
    """`scores` (`val_accuracy`, `val_loss`; means over the trainings), the epoch that was reached, the network's parameters."""

    scores: dict[str, float]
    epochs: int
    parameters: int


@dataclass
class Holdout:
    """Train on `train` with `executions` seeds, score on `validation` at each training's best epoch by `objective`.

    This is what KerasTuner's `Tuner` with `executions_per_trial` does. A trial with the hyperparameters of an earlier one
    goes on from where that one ended, as Hyperband means it.
    """

    train: Split
    validation: Split
    objective: str
    batch_size: int
    seed: int
    executions: int
    early_stopping: EarlyStopping | None

    def __post_init__(self):
        self._reached: dict[tuple, State] = {}

    def __call__(self, hyperparameters: Mapping[str, object], epochs: int) -> Evaluation:
        states = [self._trained(hyperparameters, epochs, self.seed + execution) for execution in range(self.executions)]
        best = [self._scores_of_best_epoch(state.history) for state in states]
        return Evaluation(
            scores={name: float(np.mean([scores[name] for scores in best])) for name in best[0]},
            epochs=max(state.epoch for state in states),
            parameters=states[0].parameters,
        )

    @property
    def epochs_trained(self) -> int:
        """Epochs of training in all trials so far."""
        return sum(state.epoch for state in self._reached.values())

    def _trained(self, hyperparameters: Mapping[str, object], epochs: int, seed: int) -> State:
        key = (*sorted(hyperparameters.items()), seed)
        self._reached[key] = training.train(
            hyperparameters,
            self.train,
            epochs=epochs,
            batch_size=self.batch_size,
            seed=seed,
            validation=self.validation,
            early_stopping=self.early_stopping,
            state=self._reached.get(key),
        )
        return self._reached[key]

    def _scores_of_best_epoch(self, history: Mapping[str, list[float]]) -> dict[str, float]:
        choose = np.argmax if self.objective == "val_accuracy" else np.argmin
        best = choose(history[self.objective])
        return {name: history[name][best] for name in ("val_accuracy", "val_loss")}


@dataclass
class CrossValidation:
    """Score a scikit-learn estimator on `folds` stratified folds of `data`, each trained on the others to the last epoch.

    This is what KerasTuner's `SklearnTuner` does, and for one execution `scikit-learn`'s `cross_val_score` gives the same
    accuracies. A fold has no validation images of its own, so there is no early stopping.
    """

    data: Split
    folds: int
    batch_size: int
    seed: int
    executions: int

    def __post_init__(self):
        self.epochs_trained = 0
        self._known: dict[tuple, Evaluation] = {}

    def __call__(self, hyperparameters: Mapping[str, object], epochs: int) -> Evaluation:
        key = tuple(sorted(hyperparameters.items()))
        if key not in self._known:
            self._known[key] = self._evaluate(hyperparameters, epochs)
        return self._known[key]

    def splitter(self) -> StratifiedKFold:
        """The folds, for `cross_val_score` too."""
        return StratifiedKFold(self.folds, shuffle=True, random_state=self.seed)

    def _evaluate(self, hyperparameters: Mapping[str, object], epochs: int) -> Evaluation:
        images, labels = self.data.images, self.data.labels
        accuracies, losses = [], []
        for seed in range(self.seed, self.seed + self.executions):
            for train, held_out in self.splitter().split(images, labels):
                classifier = NetworkClassifier(hyperparameters, epochs=epochs, batch_size=self.batch_size, seed=seed)
                classifier.fit(images[train], labels[train])
                accuracies.append(classifier.score(images[held_out], labels[held_out]))
                probabilities = classifier.predict_proba(images[held_out])
                losses.append(log_loss(labels[held_out], probabilities, labels=classifier.classes_))
                self.epochs_trained += epochs
        scores = {"val_accuracy": float(np.mean(accuracies)), "val_loss": float(np.mean(losses))}
        return Evaluation(scores, epochs, classifier.state_.parameters)
