"""What a trial comes to: which trainings it consists of, and the scores that follow from them.

`Holdout` scores on the validation split, `CrossValidation` on folds. Both work on the training and the
validation examples put one after the other, and name rows of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy import stats
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold

from stages.base import splits
from stages.base.console import UserError
from stages.base.params import Params
from stages.base.splits import Split
from stages.compute.runner import Training
from stages.training.checkpoint import Checkpoint
from stages.training.evaluation import EVALUATED, LOSS, SCORE, check_names


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
    """Train on the first `train_size` rows with each of `seeds`, score on the others at each best epoch.

    Best is by `objective`, as in KerasTuner's `Tuner` with `executions_per_trial`.
    """

    train_size: int
    size: int
    objective: str
    seeds: list[int]
    early_stopping: Mapping[str, object] | None

    @property
    def subsets(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """(rows to train on, rows to score on) by name."""
        return {"holdout": (np.arange(self.train_size), np.arange(self.train_size, self.size))}

    def trainings(self, hyperparameters: Mapping[str, object]) -> list[Training]:
        """The trainings of a trial."""
        return [Training(hyperparameters, seed, "holdout") for seed in self.seeds]

    def best_epoch(self, history: Mapping[str, list[float]]) -> int:
        """The epoch, from 1, that a training is scored at."""
        return 1 + int((np.argmin if self.objective == LOSS else np.argmax)(history[self.objective]))

    def standard_error(self, scores: list[dict[str, float]]) -> float:
        """The mean score's standard error for other validation examples and, with several executions, seeds.

        With one execution, the luck of its seed is left out.
        """
        of_examples = np.mean([score[f"{self.objective}_error"] ** 2 for score in scores])
        of_seeds = stats.sem([score[self.objective] for score in scores]) ** 2 if len(scores) > 1 else 0
        return float(np.sqrt(of_examples + of_seeds))


@dataclass(frozen=True)
class CrossValidation:
    """Train for each of `folds` folds, to the last epoch, on the others; score on it.

    Folds are stratified for classes; with groups, each of these is in one fold. `seed` draws them, and each
    is trained with each of `seeds`. This is KerasTuner's `SklearnTuner`. A fold has no validation examples of
    its own, so no early stopping.
    """

    data: Split
    folds: int
    seed: int
    seeds: list[int]
    early_stopping: None = None

    @property
    def splitter(self) -> KFold | StratifiedKFold | GroupKFold:
        """The folds, for scikit-learn's own functions too."""
        of_labels = StratifiedKFold if self.data.classes else KFold
        folds = of_labels if self.data.groups is None else GroupKFold
        return folds(self.folds, shuffle=True, random_state=self.seed)

    @property
    def subsets(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """(rows to train on, rows to score on) by name."""
        labels = self.data.labels
        folds = self.splitter.split(np.empty(len(labels)), labels, self.data.groups)
        return dict(zip(self._names, folds, strict=True))

    def trainings(self, hyperparameters: Mapping[str, object]) -> list[Training]:
        """The trainings of a trial."""
        return [Training(hyperparameters, seed, name) for seed in self.seeds for name in self._names]

    @property
    def _names(self) -> list[str]:
        return [f"fold {number} of {self.folds}" for number in range(1, self.folds + 1)]

    def best_epoch(self, history: Mapping[str, list[float]]) -> int:
        """The epoch, from 1, that a training is scored at."""
        return len(history[SCORE])

    def standard_error(self, scores: list[dict[str, float]]) -> float:
        """The standard error of the mean score, from the folds, whose trainings share most examples.

        With the correction of Nadeau and Bengio (2003), "Inference for the generalization error".
        """
        by_fold = np.reshape([score[SCORE] for score in scores], (len(self.seeds), self.folds)).mean(0)
        return float(by_fold.std(ddof=1) * np.sqrt(1 / self.folds + 1 / (self.folds - 1)))


def evaluate(scoring: Holdout | CrossValidation, results: list[Checkpoint | str], epochs: int) -> Evaluation:
    """Return what a trial of `epochs` epochs comes to, from its trainings' checkpoints or why they failed.

    Checkpoints may be further than that.
    """
    if failure := next((result for result in results if isinstance(result, str)), None):
        return Evaluation(failure=failure)
    checkpoints = [result for result in results if not isinstance(result, str)]
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
    check_names(tune)
    data, about = splits.load(splits.TRAINING), splits.about()
    seeds = settings.seeds("search", tune.executions_per_trial)
    if tune.strategy == "sklearn":
        problem = ""
        if tune.objective != SCORE:
            problem = f"tune.objective is {tune.objective}, but with tune.strategy sklearn should be {SCORE}"
        elif about["own_validation"]:
            problem = (
                "tune.strategy is sklearn, but its folds would mix the data set's own validation part in"
            )
        elif tune.sklearn.cv > (most := _most_folds(data)):
            problem = f"tune.sklearn.cv is {tune.sklearn.cv}, but the data allows {most} folds at most"
        if problem:
            raise UserError(f"params.yaml: {problem}")
        return CrossValidation(data, tune.sklearn.cv, settings.seed, seeds)
    return Holdout(
        train_size=about["train"],
        size=len(data.labels),
        objective=tune.objective,
        seeds=seeds,
        early_stopping=tune.early_stopping.model_dump() if tune.early_stopping else None,
    )


def _most_folds(data: Split) -> int:
    """How many folds there can be: no more than groups, or than examples of a class."""
    if data.groups is not None:
        return len(np.unique(data.groups))
    return int(np.bincount(data.labels).min()) if data.classes else len(data.labels)
