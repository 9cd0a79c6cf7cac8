"""Ask an oracle for every trial that can run now, evaluate them in parallel, tell it the results in order.

The outcome depends on the oracle and the trainings alone, not on which training ends first.
"""

import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from sklearn.exceptions import ConvergenceWarning

from stages.base.console import UserError
from stages.base.params import Bayesian, Tune
from stages.compute.runner import Training
from stages.search import oracles
from stages.search.oracles import keras_tuner
from stages.search.scoring import Evaluation, Scoring, evaluate, trainings
from stages.training.checkpoint import Checkpoint
from stages.training.evaluation import LOSS, SCORE

Run = Callable[[Mapping[Training, int]], Iterable[tuple[Training, Checkpoint | str, dict]]]
Report = Callable[["Trial"], None]


@dataclass(frozen=True)
class Trial:
    """A trial: its number, its hyperparameters, its budget of epochs and its result."""

    number: int
    hyperparameters: dict[str, object]
    budget: int
    evaluation: Evaluation


def search(
    oracle: keras_tuner.Oracle,
    run: Run,
    scoring: Scoring,
    tune: Tune,
    baseline: Mapping[str, object],
    report: Report = lambda trial: None,
) -> list[Trial]:
    """Return the evaluated trials: number 0 of the baseline, then those that `oracle` asks for, in its order.

    Args:
        run: trains, as `runner.Runner.run` does.
        baseline: hyperparameters; those that are not in `tune.space` are the same in all trials. The oracle
            does not get the result of trial 0.
        report: called with each trial as soon as it is done, in any order.
    """
    trials: list[Trial] = []
    while batch := _ask(oracle, getattr(getattr(tune, tune.strategy), "trials_at_once", None)):
        planned = [] if trials else [Trial(0, dict(baseline), tune.max_epochs, Evaluation())]
        for asked in batch:
            values, number = oracles.values(asked), len(trials) + len(planned)
            tried = {n: v for n, v in {**baseline, **values}.items() if n in values or n not in tune.space}
            planned.append(Trial(number, tried, oracles.epochs(asked, tune.max_epochs), Evaluation()))
        done = _evaluate(planned, run, scoring, report)
        for asked, trial in zip(batch, done[-len(batch) :], strict=True):
            _tell(oracle, asked, trial.evaluation)
        trials += done
    return trials


def best(trials: list[Trial], objective: str) -> Trial | None:
    """Return the best trial, of equals the first, as KerasTuner's `get_best_trials`; None if all failed."""
    scored = (trial for trial in trials if not trial.evaluation.failure)
    return max(scored, key=lambda trial: goodness(trial, objective), default=None)


def goodness(trial: Trial, objective: str) -> float:
    """Return the objective of `trial`, negated if it is a loss, so that more is better."""
    score = trial.evaluation.scores[objective]
    return -score if objective == LOSS else score


def as_good(trials: list[Trial], objective: str, tolerance: float | None = None) -> list[Trial]:
    """Return the trials that count as equally good as the best one, smallest network first.

    Without `tolerance`: those whose objective is within one standard error of the best, the 1 SE rule
    (Breiman, Friedman, Olshen & Stone 1984, "Classification and Regression Trees", section 3.4.3). With it:
    those whose validation score is at most `tolerance` below the best, whatever the objective (as `tolerance`
    of caret, Kuhn 2008, "Building predictive models in R using the caret package", but absolute).

    Only trials of the largest budget take part: scores after two and after ten epochs cannot be compared. Of
    trials with the same hyperparameters, only the first takes part.
    """
    scored = [trial for trial in trials if not trial.evaluation.failure]
    largest = max((trial.budget for trial in scored), default=0)
    full: dict[tuple, Trial] = {}
    for trial in scored:
        if trial.budget == largest:
            full.setdefault(tuple(trial.hyperparameters.items()), trial)
    top = best(list(full.values()), objective)
    if top is None:
        return []
    if tolerance is None:
        tolerance = top.evaluation.standard_error or 0.0
    else:
        objective = SCORE
    least = goodness(top, objective) - tolerance - 1e-12  # in floating point, 0.98 - 0.003 > 0.977
    good = [trial for trial in full.values() if goodness(trial, objective) >= least]
    return sorted(good, key=lambda trial: (trial.evaluation.parameters, -goodness(trial, objective)))


def _evaluate(planned: list[Trial], run: Run, scoring: Scoring, report: Report) -> list[Trial]:
    """Return the `planned` trials, in the same order, with their evaluations; each training runs once."""
    needed = [trainings(scoring, trial.hyperparameters) for trial in planned]
    trials_of: defaultdict[Training, list[int]] = defaultdict(list)
    for i, of_trial in enumerate(needed):
        for training in of_trial:
            trials_of[training].append(i)
    epochs = {training: max(planned[i].budget for i in shared) for training, shared in trials_of.items()}
    results: dict[Training, Checkpoint | str] = {}
    done = list(planned)
    for training, result, _ in run(epochs):
        results[training] = result
        for i in trials_of[training]:
            if results.keys() >= set(needed[i]):
                reached = [results[training] for training in needed[i]]
                done[i] = replace(planned[i], evaluation=evaluate(scoring, reached, planned[i].budget))
                report(done[i])
    return done


def _ask(oracle: keras_tuner.Oracle, most: int | None) -> list[keras_tuner.engine.trial.Trial]:
    batch: list[keras_tuner.engine.trial.Trial] = []
    while most is None or len(batch) < most:
        with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # of the Gaussian process
            trial = oracle.create_trial(f"worker-{len(batch)}")  # a known name would get its trial again
        if trial.status != "RUNNING":
            break
        batch.append(trial)
    return batch


def _tell(oracle: keras_tuner.Oracle, asked: keras_tuner.engine.trial.Trial, evaluation: Evaluation) -> None:
    objective, score = oracle.objective, evaluation.scores[oracle.objective.name]
    if evaluation.failure and not isinstance(oracle, keras_tuner.oracles.HyperbandOracle):
        asked.status, asked.message = "FAILED", evaluation.failure
    else:
        if evaluation.failure:  # Hyperband would promote one good trial fewer for each that is FAILED
            score = -math.inf if objective.direction == "max" else math.inf
        oracle.update_trial(asked.trial_id, {objective.name: score})
        asked.status = "COMPLETED"
    oracle.end_trial(asked)


def rehearse(tune: Tune, seed: int) -> tuple[list[int], int]:
    """Return the budget of each trial that the search will ask for, and how many epochs they need in all.

    The oracle runs with equal scores for all trials, since their number does not depend on scores. Epochs of
    trials with the same hyperparameters count once. A Bayesian search is not rehearsed: its trials depend on
    scores. UserError if the space is too small.
    """
    if isinstance(block := getattr(tune, tune.strategy), Bayesian):
        return [tune.max_epochs] * block.max_trials, tune.max_epochs * block.max_trials
    oracle, budgets = oracles.create(tune, seed), []
    longest: Counter[tuple] = Counter()
    while batch := _ask(oracle, None):
        for asked in batch:
            budgets.append(oracles.epochs(asked, tune.max_epochs))
            values = tuple(oracles.values(asked).items())
            longest[values] = max(longest[values], budgets[-1])
            _tell(oracle, asked, Evaluation({tune.objective: 0.0}))
    if max(budgets) < tune.max_epochs:
        raise UserError(
            f"params.yaml: tune.space is too small for hyperband: it would try {len(budgets)} networks, "
            f"none of them for tune.max_epochs ({tune.max_epochs}); use tune.strategy grid, which tries all"
        )
    return budgets, longest.total()
