"""What a trial comes to: which trainings it consists of, and the scores that follow from them.

`Holdout` scores on the validation split, `CrossValidation` on folds. Both work on the training and the
validation examples put one after the other, and name rows of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy import stats
from sklearn.model_selection import KFold, StratifiedKFold

from stages.base import splits
from stages.base.console import UserError
from stages.base.params import Params
from stages.base.section import shown
from stages.compute.runner import Training
from stages.training.checkpoint import EVALUATED, LOSS, SCORE, Checkpoint
from stages.training.score import NAME


@dataclass(frozen=True)
class Evaluation:
    """What a trial came to; means over its trainings.

    Attributes:
        scores: the validation score and loss.
        standard_error: of the objective.
        epochs: the epoch reached.
        best_epoch: the epoch that the scores are of; the latest of its trainings' epochs if it has several.
        seconds_per_epoch: the median.
        parameters: how many numbers the network has.
        failure: why there are no scores; None if all is well.
    """

    scores: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys((SCORE, LOSS), float("nan")))
    standard_error: float | None = None
    epochs: int = 0
    best_epoch: int | None = None
    seconds_per_epoch: float | None = None
    parameters: int | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Holdout:
    """Train on the first `train_size` rows with `executions` seeds, score on the others at each best epoch.

    Best is by `objective`, as in KerasTuner's `Tuner` with `executions_per_trial`.
    """

    train_size: int
    size: int
    objective: str
    seed: int
    executions: int
    early_stopping: Mapping[str, object] | None

    @property
    def subsets(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """(rows to train on, rows to score on) by name."""
        return {"holdout": (np.arange(self.train_size), np.arange(self.train_size, self.size))}

    def trainings(self, hyperparameters: Mapping[str, object]) -> list[Training]:
        """The trainings of a trial."""
        return [
            Training(hyperparameters, self.seed + execution, "holdout")
            for execution in range(self.executions)
        ]

    def best_epoch(self, history: Mapping[str, list[float]]) -> int:
        """The epoch, from 1, that a training is scored at."""
        return 1 + int((np.argmin if self.objective == LOSS else np.argmax)(history[self.objective]))

    def standard_error(self, scores: list[dict[str, float]]) -> float:
        """The mean score's standard error for other validation examples and, with several executions, seeds.

        With one execution, the luck of its seed is left out.
        """
        of_examples = np.mean([score[f"{self.objective}_std"] ** 2 for score in scores]) / (
            self.size - self.train_size
        )
        of_seeds = stats.sem([score[self.objective] for score in scores]) ** 2 if len(scores) > 1 else 0
        return float(np.sqrt(of_examples + of_seeds))


@dataclass(frozen=True)
class CrossValidation:
    """Train for each of `folds` folds, stratified for classes, to the last epoch on the others; score on it.

    This is KerasTuner's `SklearnTuner`. A fold has no validation examples of its own, so no early stopping.
    """

    labels: np.ndarray
    folds: int
    seed: int
    executions: int
    early_stopping: None = None

    @property
    def splitter(self) -> KFold | StratifiedKFold:
        """The folds, for scikit-learn's own functions too."""
        folds = StratifiedKFold if self.labels.dtype.kind == "i" else KFold
        return folds(self.folds, shuffle=True, random_state=self.seed)

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

    def best_epoch(self, history: Mapping[str, list[float]]) -> int:
        """The epoch, from 1, that a training is scored at."""
        return len(history[SCORE])

    def standard_error(self, scores: list[dict[str, float]]) -> float:
        """The standard error of the mean score, from the folds."""
        by_fold = np.reshape([score[SCORE] for score in scores], (self.executions, self.folds))
        return float(stats.sem(by_fold.mean(0)))


def evaluate(scoring: Holdout | CrossValidation, checkpoints: list[Checkpoint], epochs: int) -> Evaluation:
    """Return what a trial of `epochs` epochs comes to; its trainings reached `checkpoints`, maybe further."""
    histories = [
        {name: values[:epochs] for name, values in checkpoint.history.items()} for checkpoint in checkpoints
    ]
    reached, parameters = max(len(history["loss"]) for history in histories), checkpoints[0].parameters
    for checkpoint, history in zip(checkpoints, histories, strict=True):
        if checkpoint.failure and len(history["loss"]) == checkpoint.epoch:
            return Evaluation(epochs=reached, parameters=parameters, failure=checkpoint.failure)
    best_epochs = [scoring.best_epoch(history) for history in histories]
    scores = [
        {name: history[name][epoch - 1] for name in EVALUATED}
        for history, epoch in zip(histories, best_epochs, strict=True)
    ]
    return Evaluation(
        {name: float(np.mean([score[name] for score in scores])) for name in (SCORE, LOSS)},
        standard_error=scoring.standard_error(scores),
        epochs=reached,
        best_epoch=max(best_epochs),
        seconds_per_epoch=float(
            np.median(np.concatenate([checkpoint.seconds[:epochs] for checkpoint in checkpoints]))
        ),
        parameters=parameters,
    )


def scoring_of(settings: Params) -> Holdout | CrossValidation:
    """Return how a trial is scored: for `sklearn` on folds, for other strategies on the validation examples.

    Raises:
        UserError: the score or the data do not allow what `tune` in params.yaml says.
    """
    tune = settings.tune
    monitor = tune.early_stopping and tune.early_stopping.monitor
    for name, value, choices in (
        ("objective", tune.objective, (SCORE,) if tune.strategy == "sklearn" else (SCORE, LOSS)),
        ("early_stopping.monitor", monitor, (SCORE, LOSS, NAME, "loss")),
    ):
        if value is not None and value not in choices:
            allowed = f"with tune.strategy {tune.strategy} should be one of {', '.join(choices)}"
            raise UserError(f"params.yaml: tune.{name} is {shown(value)}, but {allowed}")
    training = splits.load(splits.TRAINING)
    labels, classes = training.labels, training.classes
    if tune.strategy == "sklearn":
        fewest, where = (np.bincount(labels).min(), "a class has") if classes else (len(labels), "there are")
        if tune.sklearn.cv > fewest:
            raise UserError(
                f"params.yaml: tune.sklearn.cv is {tune.sklearn.cv}, but {where} {fewest} examples only"
            )
        return CrossValidation(labels, tune.sklearn.cv, settings.seed, tune.executions_per_trial)
    return Holdout(
        train_size=splits.train_size(),
        size=len(labels),
        objective=tune.objective,
        seed=settings.seed,
        executions=tune.executions_per_trial,
        early_stopping=tune.early_stopping.model_dump() if tune.early_stopping else None,
    )
