"""What a trial comes to: which trainings it consists of, and the scores that follow from them.

`Holdout` scores on the validation split, `CrossValidation` on stratified folds. Both work on the training and the validation
images put one after the other, and name rows of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from sklearn.model_selection import StratifiedKFold

from stages.training import EarlyStopping, State


@dataclass(frozen=True)
class Training:
    """One training of a trial.

    Attributes:
        hyperparameters: keywords of `model.build`.
        seed: of its initial weights, shuffling and dropout.
        part: a name for the rows it trains on and those it is scored on: a key of `parts`.
    """

    hyperparameters: Mapping[str, object]
    seed: int
    part: str

    def __hash__(self) -> int:
        return hash((tuple(sorted(self.hyperparameters.items())), self.seed, self.part))


@dataclass(frozen=True)
class Evaluation:
    """`scores` (`val_accuracy`, `val_loss`; means over the trainings), the epoch reached, the network's parameters.

    `failure` says why there are no scores; None if all is well.
    """

    scores: Mapping[str, float] = field(default_factory=lambda: {"val_accuracy": float("nan"), "val_loss": float("nan")})
    epochs: int = 0
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
    def parts(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """(rows to train on, rows to score on) by name."""
        return {"holdout": (np.arange(self.train_size), np.arange(self.train_size, self.size))}

    def trainings(self, hyperparameters: Mapping[str, object]) -> list[Training]:
        """The trainings of a trial."""
        return [Training(hyperparameters, self.seed + execution, "holdout") for execution in range(self.executions)]

    def scores(self, history: Mapping[str, list[float]]) -> dict[str, float]:
        """The scores of one training."""
        best = (np.argmax if self.objective == "val_accuracy" else np.argmin)(history[self.objective])
        return {name: history[name][best] for name in ("val_accuracy", "val_loss")}


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
    def parts(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """(rows to train on, rows to score on) by name."""
        splits = self.splitter.split(np.empty(len(self.labels)), self.labels)
        return {f"fold {number} of {self.folds}": rows for number, rows in enumerate(splits, start=1)}

    def trainings(self, hyperparameters: Mapping[str, object]) -> list[Training]:
        """The trainings of a trial."""
        seeds = range(self.seed, self.seed + self.executions)
        return [Training(hyperparameters, seed, part) for seed in seeds for part in self.parts]

    def scores(self, history: Mapping[str, list[float]]) -> dict[str, float]:
        """The scores of one training."""
        return {name: history[name][-1] for name in ("val_accuracy", "val_loss")}


def evaluate(protocol: Holdout | CrossValidation, states: list[State], epochs: int) -> Evaluation:
    """Return what a trial of `epochs` epochs comes to whose trainings reached `states`, which may be further than that."""
    histories = [{name: values[:epochs] for name, values in state.history.items()} for state in states]
    reached, parameters = max(len(history["loss"]) for history in histories), states[0].parameters
    for state, history in zip(states, histories, strict=True):
        if state.failure and len(history["loss"]) == state.epoch:
            return Evaluation(epochs=reached, parameters=parameters, failure=state.failure)
    scores = [protocol.scores(history) for history in histories]
    return Evaluation({name: float(np.mean([score[name] for score in scores])) for name in scores[0]}, reached, parameters)
