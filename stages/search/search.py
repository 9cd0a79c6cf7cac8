"""Ask, evaluate, tell: ask an oracle for every trial that can run now, evaluate them, tell the results in trial order.

What comes out depends on the oracle and the evaluation alone.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import keras_tuner
from sklearn.exceptions import ConvergenceWarning

from stages.search import oracles
from stages.search.evaluation import Evaluation


@dataclass(frozen=True)
class Trial:
    """One line of the search: its number from 1, what was tried, the epochs that it was granted, and what it came to."""

    number: int
    hyperparameters: dict[str, object]
    budget: int
    evaluation: Evaluation


def search(
    oracle: keras_tuner.Oracle,
    evaluate: Callable[[Mapping[str, object], int], Evaluation],
    *,
    fixed: Mapping[str, object],
    max_epochs: int,
    trials_at_once: int | None,
) -> Iterator[Trial]:
    """Yield the trials that `oracle` asks for, evaluated, in its order.

    Args:
        evaluate: a function of (hyperparameters, epochs).
        fixed: hyperparameters that are not in the oracle's space.
        max_epochs: of a trial whose epochs the oracle does not decide.
        trials_at_once: asked for before the first of them is told; None for as many as the oracle has.
    """
    number = 0
    while batch := _ask(oracle, trials_at_once):
        for asked in batch:
            number += 1
            hyperparameters, budget = {**fixed, **oracles.values(asked)}, oracles.epochs(asked, max_epochs)
            evaluation = evaluate(hyperparameters, budget)
            yield Trial(number, hyperparameters, budget, evaluation)
            oracle.update_trial(asked.trial_id, {oracle.objective.name: evaluation.scores[oracle.objective.name]})
            asked.status = "COMPLETED"
            oracle.end_trial(asked)


def best(trials: list[Trial], objective: keras_tuner.Objective) -> Trial:
    """Return the trial with the best score, the first of equals, as KerasTuner's `get_best_trials` does."""
    choose = max if objective.direction == "max" else min
    return choose(trials, key=lambda trial: trial.evaluation.scores[objective.name])


def _ask(oracle: keras_tuner.Oracle, most: int | None) -> list[keras_tuner.engine.trial.Trial]:
    batch = []
    while most is None or len(batch) < most:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of the Gaussian process, and nothing a user can mend
            trial = oracle.create_trial(f"worker-{len(batch)}")  # an oracle gives a worker its running trial again
        if trial.status != "RUNNING":
            break
        batch.append(trial)
    return batch
