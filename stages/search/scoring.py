"""What a trial comes to: which trainings it consists of, and the scores that follow from them.

`Holdout` scores on the validation split, `CrossValidation` on stratified folds. Both work on the training and the validation
images put one after the other, and name rows of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy import stats
from sklearn.model_selection import StratifiedKFold

from stages.compute.worker import Training
from stages.training.trainer import SCORES, Checkpoint, EarlyStopping


@dataclass(frozen=True)
class Evaluation:
    """What a trial came to; means over its trainings.

    Attributes:
        scores: `val_accuracy` and `val_loss`.
        standard_error: of the objective's score.
        epochs: the epoch reached.
        epochs_to_target: the first epoch with the target accuracy; None if a training did not reach it.
        seconds_per_epoch: the median.
        parameters: how many numbers the network has.
        failure: why there are no scores; None if all is well.
    """

    scores: Mapping[str, float] = field(default_factory=lambda: {"val_accuracy": float("nan"), "val_loss": float("nan")})
    standard_error: float | None = None
    epochs: int = 0
    epochs_to_target: float | None = None
    seconds_per_epoch: float | None = None
    parameters: int | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Holdout:
    """Train on the first `train_size` rows with `executions` seeds, score on the others at each training's best epoch.

    Best is by `objective`, as in KerasTuner's `Tuner` with `executions_per_trial`.
    """

    train_size: int
    size: int
    objective: str
    seed: int
    executions: int
    early_stopping: EarlyStopping | None

    @property
    def subsets(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """(rows to train on, rows to score on) by name."""
        return {"holdout": (np.arange(self.train_size), np.arange(self.train_size, self.size))}

    def trainings(self, hyperparameters: Mapping[str, object]) -> list[Training]:
        """The trainings of a trial."""
        return [Training(hyperparameters, self.seed + execution, "holdout") for execution in range(self.executions)]

    def scores(self, history: Mapping[str, list[float]]) -> dict[str, float]:
        """The scores of one training."""
        best = (np.argmax if self.objective == "val_accuracy" else np.argmin)(history[self.objective])
        return {name: history[name][best] for name in SCORES}

    def standard_error(self, scores: list[dict[str, float]]) -> float:
        """The standard error of the mean score, for other validation images and, with several executions, other seeds."""
        if self.objective == "val_accuracy":
            variances = [score["val_accuracy"] * (1 - score["val_accuracy"]) for score in scores]
        else:
            variances = [score["val_loss_std"] ** 2 for score in scores]
        of_images = np.mean(variances) / (self.size - self.train_size)
        of_seeds = stats.sem([score[self.objective] for score in scores]) ** 2 if len(scores) > 1 else 0
        return float(np.sqrt(of_images + of_seeds))


@dataclass(frozen=True)
class CrossValidation:
    """Train once for each of `folds` stratified folds, to the last epoch and on all other folds; score on the fold.

    This is KerasTuner's `SklearnTuner`, and for one execution `cross_val_score` of a `NetworkClassifier` gives the same
    accuracies. A fold has no validation images of its own, so there is no early stopping.
    """

    labels: np.ndarray
    folds: int
    seed: int
    executions: int
    early_stopping: None = None

    @property
    def splitter(self) -> StratifiedKFold:
        """The folds, for scikit-learn's own functions too."""
        return StratifiedKFold(self.folds, shuffle=True, random_state=self.seed)

    @property
    def subsets(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """(rows to train on, rows to score on) by name."""
        splits = self.splitter.split(np.empty(len(self.labels)), self.labels)
        return dict(zip(self._names, splits, strict=True))

    def trainings(self, hyperparameters: Mapping[str, object]) -> list[Training]:
        """The trainings of a trial."""
        seeds = range(self.seed, self.seed + self.executions)
        return [Training(hyperparameters, seed, name) for seed in seeds for name in self._names]

    @property
    def _names(self) -> list[str]:
        return [f"fold {number} of {self.folds}" for number in range(1, self.folds + 1)]

    def scores(self, history: Mapping[str, list[float]]) -> dict[str, float]:
        """The scores of one training."""
        return {name: history[name][-1] for name in SCORES}

    def standard_error(self, scores: list[dict[str, float]]) -> float:
        """The standard error of the mean accuracy, from the folds."""
        accuracies = np.reshape([score["val_accuracy"] for score in scores], (self.executions, self.folds))
        return float(stats.sem(accuracies.mean(0)))


def evaluate(scoring: Holdout | CrossValidation, checkpoints: list[Checkpoint], epochs: int, target: float = 1.0) -> Evaluation:
    """Return what a trial of `epochs` epochs comes to whose trainings reached `checkpoints`, which may be further than that.

    Args:
        target: the validation accuracy for `epochs_to_target`.
    """
    histories = [{name: values[:epochs] for name, values in checkpoint.history.items()} for checkpoint in checkpoints]
    reached, parameters = max(len(history["loss"]) for history in histories), checkpoints[0].parameters
    for checkpoint, history in zip(checkpoints, histories, strict=True):
        if checkpoint.failure and len(history["loss"]) == checkpoint.epoch:
            return Evaluation(epochs=reached, parameters=parameters, failure=checkpoint.failure)
    scores = [scoring.scores(history) for history in histories]
    reaching = [np.flatnonzero(np.asarray(history["val_accuracy"]) >= target) for history in histories]
    return Evaluation(
        {name: float(np.mean([score[name] for score in scores])) for name in ("val_accuracy", "val_loss")},
        standard_error=scoring.standard_error(scores),
        epochs=reached,
        epochs_to_target=float(np.mean([first[0] + 1 for first in reaching])) if all(map(len, reaching)) else None,
        seconds_per_epoch=float(np.median(np.concatenate([checkpoint.seconds[:epochs] for checkpoint in checkpoints]))),
        parameters=parameters,
    )
