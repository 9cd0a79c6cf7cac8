"""How a trial is scored: the trainings that it needs, and the scores that follow from them.

`Holdout` scores on the validation examples, `CrossValidation` on folds. Both select rows of
`splits.TRAINING`, which has the train and then the validation examples.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import stats
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from stages.base import splits
from stages.base.console import UserError
from stages.base.params import Params
from stages.base.splits import Split
from stages.compute.runner import Training
from stages.training.checkpoint import Checkpoint
from stages.training.evaluation import EVALUATED, LOSS, SCORE, check_names

Rows = tuple[np.ndarray, np.ndarray]  # to train on, to score on


@dataclass(frozen=True)
class Evaluation:
    """The result of a trial: means over its trainings.

    Attributes:
        scores: the validation score and loss.
        standard_error: of the objective.
        epochs: the epoch reached.
        best_epoch: the epoch at which it is scored; of several trainings, the latest such epoch.
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
    """Score on the validation examples, at the best epoch of each training.

    The best epoch is the one with the best `objective`, as in KerasTuner's `Tuner` with
    `executions_per_trial`. A trial has a training for each of `seeds`. `subsets` has a single entry, (rows to
    train on, rows to score on).
    """

    subsets: Mapping[str, Rows]
    seeds: list[int]
    objective: str
    early_stopping: Mapping[str, object] | None

    def best_epoch(self, history: Mapping[str, list[float]]) -> int:
        """Return the epoch, counted from 1, at which a training is scored."""
        return 1 + int((np.argmin if self.objective == LOSS else np.argmax)(history[self.objective]))

    def standard_error(self, scores: list[dict[str, float]]) -> float:
        """Return the standard error of the mean score, over validation examples and, if several, over seeds.

        With a single seed, the variation between seeds is not in it.
        """
        of_examples = np.mean([score[f"{self.objective}_error"] ** 2 for score in scores])
        of_seeds = stats.sem([score[self.objective] for score in scores]) ** 2 if len(scores) > 1 else 0
        return float(np.sqrt(of_examples + of_seeds))


@dataclass(frozen=True)
class CrossValidation:
    """Score on each of several folds, after the last epoch of a training on the other folds.

    KerasTuner's `SklearnTuner` does the same. A trial has one training for each pair of a seed and a fold.
    `subsets` has (rows to train on, rows to score on) by the fold's name. There is no early stopping, since
    it would need validation examples besides the fold.
    """

    subsets: Mapping[str, Rows]
    seeds: list[int]
    early_stopping: None = None

    def best_epoch(self, history: Mapping[str, list[float]]) -> int:
        """Return the epoch, counted from 1, at which a training is scored."""
        return len(history[SCORE])

    def standard_error(self, scores: list[dict[str, float]]) -> float:
        """Return the standard error of the mean score, from the variance between folds.

        It is corrected for the examples that the folds' trainings share, after Nadeau and Bengio (2003),
        "Inference for the generalization error".
        """
        folds = len(self.subsets)
        by_fold = np.reshape([score[SCORE] for score in scores], (len(self.seeds), folds)).mean(0)
        return float(by_fold.std(ddof=1) * np.sqrt(1 / folds + 1 / (folds - 1)))


Scoring = Holdout | CrossValidation


def trainings(scoring: Scoring, hyperparameters: Mapping[str, object]) -> list[Training]:
    """Return the trainings of a trial, one for each seed and subset."""
    return [Training(hyperparameters, seed, name) for seed in scoring.seeds for name in scoring.subsets]


def evaluate(scoring: Scoring, results: list[Checkpoint | str], epochs: int) -> Evaluation:
    """Return the evaluation of a trial of `epochs` epochs from its trainings' checkpoints or failures.

    If a checkpoint has more epochs, as one from the store may, only the first `epochs` count.
    """
    checkpoints = []
    for result in results:
        if isinstance(result, str):
            return Evaluation(failure=result)
        history = {name: values[:epochs] for name, values in result.history.items()}
        checkpoints.append(replace(result, history=history, seconds=result.seconds[:epochs]))
    reached = Evaluation(
        epochs=max(len(checkpoint.history["loss"]) for checkpoint in checkpoints),
        parameters=checkpoints[0].parameters,
        failure=next((checkpoint.failure for checkpoint in checkpoints if checkpoint.failure), None),
    )
    if reached.failure:
        return reached
    best_epochs = [scoring.best_epoch(checkpoint.history) for checkpoint in checkpoints]
    scores = [
        {name: checkpoint.history[name][epoch - 1] for name in EVALUATED}
        for checkpoint, epoch in zip(checkpoints, best_epochs, strict=True)
    ]
    seconds = np.concatenate([checkpoint.seconds for checkpoint in checkpoints])
    return replace(
        reached,
        scores={name: float(np.mean([score[name] for score in scores])) for name in (SCORE, LOSS)},
        standard_error=scoring.standard_error(scores),
        best_epoch=max(best_epochs),
        seconds_per_epoch=float(np.median(seconds)),
    )


def scoring_of(settings: Params) -> Scoring:
    """Return the scoring for `tune.strategy`: on folds for `sklearn`, else on the validation examples.

    Raises:
        UserError: the settings of `tune` do not fit the score or the data.
    """
    tune = settings.tune
    check_names(tune)
    data, about = splits.load(splits.TRAINING), splits.about()
    seeds = settings.seeds("search", tune.executions_per_trial)
    if tune.strategy != "sklearn":
        train, validation = np.split(np.arange(len(data.labels)), [about["train"]])
        early_stopping = tune.early_stopping.model_dump() if tune.early_stopping else None
        return Holdout({"holdout": (train, validation)}, seeds, tune.objective, early_stopping)
    if tune.objective != SCORE:
        problem = f"tune.objective is {tune.objective}, but should be {SCORE} with tune.strategy sklearn"
    elif about["own_validation"]:
        problem = (
            "tune.strategy is sklearn, but its folds would mix the data set's own validation part with the "
            "training part; use another strategy, or leave `validation` out of the Dataset"
        )
    elif tune.sklearn.cv > (most := _most_folds(data)):
        problem = f"tune.sklearn.cv is {tune.sklearn.cv}, but the data allows {most} folds at most"
    else:
        return CrossValidation(folds(data, tune.sklearn.cv, settings.seed), seeds)
    raise UserError(f"params.yaml: {problem}")


def folds(data: Split, count: int, seed: int) -> dict[str, Rows]:
    """Return (rows to train on, rows to score on) by the name of the fold, drawn with `seed`.

    Folds are stratified by class; a group is never divided between folds.

    Raises:
        UserError: a fold would be empty, or the other folds would lack a class.
    """
    splitters = (StratifiedKFold, StratifiedGroupKFold) if data.classes else (KFold, GroupKFold)
    splitter = splitters[data.groups is not None](count, shuffle=True, random_state=seed)
    rows = list(splitter.split(np.empty(len(data.labels)), data.labels, data.groups))
    for train, scored in rows:
        missing = set(range(data.classes)) - set(data.labels[train].tolist()) if data.classes else set()
        if missing or not len(scored):
            what = f"no example of class {min(missing)} to train on" if missing else "an empty fold"
            raise UserError(f"params.yaml: tune.sklearn.cv is {count}, but leaves {what}; use fewer folds")
    return {f"fold {number} of {count}": each for number, each in enumerate(rows, start=1)}


def _most_folds(data: Split) -> int:
    """The largest number of folds: that of groups, or of examples of the rarest class."""
    if data.groups is not None:
        return len(np.unique(data.groups))
    return int(np.bincount(data.labels).min()) if data.classes else len(data.labels)
