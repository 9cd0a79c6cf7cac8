"""The body of the stage `tune`: from params.yaml and the prepared data to the search's outputs."""

import time
from dataclasses import dataclass
from functools import partial

import pandas as pd
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance

from stages.base import console
from stages.base.files import write_csv, write_json
from stages.base.params import Params, Range, Tune
from stages.base.section import listed
from stages.compute.runner import Runner
from stages.search import oracles
from stages.search.scoring import CrossValidation, Evaluation, Holdout
from stages.search.search import Trial, as_good, best, rehearse, search
from stages.training.evaluation import SCORE

EDGE = 0.05  # of a range, from either end
TRIALS = "metrics/plots/trials.csv"
FEWEST_SCORES = 5  # from which a hyperparameter's importance can be told


def row(trial: Trial, objective: str, choice: str = "", limit: float | None = None) -> dict[str, object]:
    """Return `trial` as a row of trials.csv; `limit` is the worst that the selection takes for as good."""
    evaluation = trial.evaluation
    return {
        "trial": trial.number,
        **trial.hyperparameters,
        "budget": trial.budget,
        "epochs": evaluation.epochs,
        **evaluation.scores,
        "standard_error": evaluation.standard_error,
        "best_epoch": evaluation.best_epoch,
        "seconds_per_epoch": evaluation.seconds_per_epoch and round(evaluation.seconds_per_epoch, 3),
        "parameters": evaluation.parameters,
        "choice": choice,
        "limit": limit,
        "objective": objective,
        "failure": evaluation.failure,
    }


def lines(trials: list[Trial], chosen: Trial, tune: Tune) -> pd.DataFrame:
    """Return a row for each trial and searched hyperparameter: value and position in the space, 0 to 1.

    `least` and `greatest` are the values at the ends of the space, `score` is that of `objective`.
    """
    space = oracles.search_space(tune.space).space
    ends = {name: dimension.ends for name, dimension in tune.space.items()}
    rows = [
        {
            "trial": trial.number,
            "hyperparameter": dimension.name,
            "value": str(trial.hyperparameters[dimension.name]),  # no column of floats, in which 32 is 32.0
            "position": round(dimension.value_to_prob(trial.hyperparameters[dimension.name]), 6),
            "least": str(ends[dimension.name][0]),
            "greatest": str(ends[dimension.name][1]),
            "dimensions": len(space),
            "budget": trial.budget,
            "objective": tune.objective,
            "score": trial.evaluation.scores[tune.objective],
            "standard_error": trial.evaluation.standard_error,
            "chosen": "yes" if trial is chosen else "no",
        }
        for trial in trials
        for dimension in space
        if tune.space[dimension.name].has(trial.hyperparameters.get(dimension.name))
        if not trial.evaluation.failure
    ]
    return with_importance(pd.DataFrame(rows)) if rows else pd.DataFrame(rows)


def with_importance(table: pd.DataFrame) -> pd.DataFrame:
    """Return `table` with each hyperparameter's `importance`, and `r2` to trust it by; empty if there is one.

    The importance is a share: how much worse a random forest, grown on the trials of the full budget, guesses
    their scores once the hyperparameter is shuffled (scikit-learn's `permutation_importance`), of the sum.
    `r2` is the forest's R2 on trials that its trees have not seen. To it, a missing hyperparameter is -1.
    """
    full = table[table["budget"] == table["budget"].max()]
    positions = full.pivot(index="trial", columns="hyperparameter", values="position").fillna(-1)
    scores = full.groupby("trial")["score"].first()
    if positions.shape[1] < 2 or scores.nunique() < FEWEST_SCORES:
        return table.assign(importance=None, r2=None)
    forest = RandomForestRegressor(oob_score=True, random_state=0, n_jobs=1)
    forest.fit(positions.to_numpy(), scores)
    drops = permutation_importance(
        forest, positions.to_numpy(), scores, n_repeats=10, random_state=0, n_jobs=1
    ).importances_mean.clip(0)
    shares = dict(zip(positions.columns, drops / max(drops.sum(), 1e-12), strict=True))
    shares = table["hyperparameter"].map(shares).round(3)
    return table.assign(importance=shares, r2=round(float(forest.oob_score_), 3))


def brief(trial: Trial, tune: Tune) -> dict:
    """Return what tune.json says of a trial that is worth comparing."""
    return {
        "trial": trial.number,
        "hyperparameters": {n: value for n, value in trial.hyperparameters.items() if n in tune.space},
        "parameters": trial.evaluation.parameters,
        "score": None if trial.evaluation.failure else trial.evaluation.scores[tune.objective],
        "epoch": trial.evaluation.best_epoch,
        "standard_error": trial.evaluation.standard_error,
    }


class Progress:
    """Shows the best score in the bar and, without a terminal to draw it on, a line for each trial done.

    Writes the trials that are done to metrics/plots/trials.csv, for those who look at plots while it runs.
    """

    def __init__(self, bar, count: int, names: list[str], objective, form: str):
        self.bar, self.count, self.names, self.objective, self.form = bar, count, names, objective, form
        self.trials: list[Trial] = []

    def __call__(self, trial: Trial) -> None:
        self.trials.append(trial)
        done = sorted(self.trials, key=lambda trial: trial.number)
        write_csv(TRIALS, pd.DataFrame(row(each, self.objective.name) for each in done))
        top, name = best(self.trials, self.objective), self.objective.name
        so_far = f"best={top.evaluation.scores[name]:{self.form}}" if top else "no score yet"
        self.bar.set_postfix_str(so_far, refresh=False)
        if self.bar.disable:
            tried = " ".join(f"{n}={value}" for n, value in trial.hyperparameters.items() if n in self.names)
            score = trial.evaluation.failure or f"{trial.evaluation.scores[name]:{self.form}}"
            count = f"{len(self.trials)}/{self.count} trial {trial.number}"
            print(f"{count}: {tried} epochs={trial.evaluation.epochs} {name}={score} {so_far}", flush=True)


@dataclass(frozen=True)
class Choice:
    """Which trial the search takes, and why.

    Attributes:
        trial: the one that is taken.
        reference: the best of those that the rule takes for as good.
        top: the best of all.
        by_rule: what each rule takes for as good, smallest first.
        near: how near to the reference that is, in words.
        limit: the worst score that is as good; None where the rule is not about the objective.
    """

    trial: Trial
    reference: Trial
    top: Trial
    by_rule: dict[str, list[Trial]]
    near: str
    limit: float | None

    def label(self, trial: Trial) -> str:
        """Return the column `choice` of trials.csv for `trial`."""
        labels = {
            "baseline": trial.number == 0,
            "best": trial is self.reference,
            "chosen": trial is self.trial,
        }
        return ", ".join(label for label, applies in labels.items() if applies)


def choose(trials: list[Trial], tune: Tune, objective: oracles.keras_tuner.Objective) -> Choice:
    """Return what `tune.selection` takes; UserError if all trials failed."""
    top = best(trials, objective)
    if top is None:
        raise console.UserError(
            f"all trials ({len(trials)}) failed; the first: {trials[0].evaluation.failure}"
        )
    by_rule = {
        "tolerance": as_good(trials, objective, tune.tolerance),
        "one_standard_error": as_good(trials, objective),
        "best": [top],
    }
    as_good_trials = by_rule[tune.selection]
    reference = best(sorted(as_good_trials, key=lambda trial: trial.number), objective) or top
    in_score = tune.objective == SCORE  # as the tolerance is
    near, width = {
        "tolerance": (
            f"{tune.tolerance:g}{'' if in_score else f' in {SCORE}'}",
            tune.tolerance if in_score else None,
        ),
        "one_standard_error": ("one standard error", reference.evaluation.standard_error),
        "best": ("", 0.0),
    }[tune.selection]
    worse = -1 if objective.direction == "max" else 1
    limit = None if width is None else reference.evaluation.scores[tune.objective] + worse * width
    return Choice(as_good_trials[0], reference, top, by_rule, near, limit)


def plan(tune: Tune, scoring: Holdout | CrossValidation, seed: int) -> tuple[int, int]:
    """Return how many trials and epochs the search has at most, the baseline's trial among them.

    Raises:
        UserError: the space is too small.
    """
    budgets, epochs = rehearse(tune, seed)
    if max(budgets) < tune.max_epochs:
        raise console.UserError(
            f"params.yaml: tune.space is too small for hyperband: it would try {len(budgets)} networks, "
            f"none of them for tune.max_epochs ({tune.max_epochs}); use tune.strategy grid, which tries all"
        )
    return 1 + len(budgets), (tune.max_epochs + epochs) * len(scoring.trainings({}))


def tune(settings: Params, scoring: Holdout | CrossValidation, runner: Runner) -> None:
    """Search on `runner`'s workers; write data/tune, metrics/tune.json and metrics/plots/{trials,space}.csv.

    Raises:
        UserError: all trials failed, or params.yaml does not fit the score or the data.
    """
    start, tune, baseline = time.perf_counter(), settings.tune, settings.baseline
    if taken := row(Trial(0, {}, 0, Evaluation()), "").keys() & {*baseline, *tune.space}:
        what = f"{min(taken)} is a column of metrics/plots/trials.csv; give the hyperparameter another name"
        raise console.UserError(f"params.yaml: baseline.{what}")
    oracle, (count, epochs) = oracles.create(tune, settings.seed), plan(tune, scoring, settings.seed)
    form = console.decimals(tune.tolerance)
    with console.progress_bar("tune", epochs) as bar:
        runner.progress = partial(console.advance, bar)
        stored = f"{len(runner.stored)} trainings in {settings.runtime.store}"
        bar.write(f"tune: up to {count} trials, one of the baseline, {epochs} epochs; {stored}")
        trials = search(
            oracle,
            runner.run,
            scoring,
            baseline=baseline,
            max_epochs=tune.max_epochs,
            trials_at_once=getattr(getattr(tune, tune.strategy), "trials_at_once", None),
            report=Progress(bar, count, list(tune.space), oracle.objective, form),
        )
        choice = choose(trials, tune, oracle.objective)
    for note in filter(None, (doubt(choice, tune, form), edge(choice.top, tune))):
        console.say(note)
    limits = [choice.limit if trial is choice.reference else None for trial in trials]
    rows = (
        row(trial, tune.objective, choice.label(trial), limit)
        for trial, limit in zip(trials, limits, strict=True)
    )
    write_csv(TRIALS, pd.DataFrame(rows))
    write_csv("metrics/plots/space.csv", lines(trials, choice.trial, tune))
    chosen = {"hyperparameters": choice.trial.hyperparameters, "epochs": choice.trial.evaluation.best_epoch}
    write_json("data/tune/network.json", chosen)
    write_json("metrics/tune.json", metrics(trials, choice, tune, runner, start))
    counts = f"{len(trials)} trials, {sum(runner.epochs.values())} epochs, {runner.epochs_reused} of them"
    console.result(f"tune: {reason(choice, tune, form)}; {counts} from {settings.runtime.store}")


def metrics(
    trials: list[Trial], choice: Choice, tune: Tune, runner: Runner, start: float
) -> dict[str, object]:
    """Return what is in metrics/tune.json."""
    chosen = choice.trial
    return {
        "strategy": tune.strategy,
        "selection": tune.selection,
        "hyperparameters": chosen.hyperparameters,
        "parameters": chosen.evaluation.parameters,
        "objective": tune.objective,
        "score": chosen.evaluation.scores[tune.objective],
        "epoch": chosen.evaluation.best_epoch,
        "baseline": brief(trials[0], tune),
        **{rule: {**brief(good[0], tune), "candidates": len(good)} for rule, good in choice.by_rule.items()},
        "trials": len(trials) - 1,
        "failed_trials": sum(trial.evaluation.failure is not None for trial in trials[1:]),
        "epochs": sum(runner.epochs.values()),
        "seconds": round(time.perf_counter() - start, 3),
    }


def reason(choice: Choice, tune: Tune, form: str) -> str:
    """Return in words which trial is taken, and why."""

    def named(trial: Trial) -> str:
        score = f"{tune.objective} {trial.evaluation.scores[tune.objective]:{form}}"
        return f"{listed(brief(trial, tune)['hyperparameters'])} with {score}"

    why = "the best" if choice.reference is choice.top else "the best with the full budget"
    if choice.trial is not choice.reference:
        count = len(choice.by_rule[tune.selection])
        why = f"the smallest of {count} within {choice.near} of {why} ({named(choice.reference)})"
    return f"{named(choice.trial)}, {why}"


def edge(top: Trial, tune: Tune) -> str | None:
    """Return a note if the best trial has a number at an end of its range, or near it; else None."""
    at_end = []
    for dimension in oracles.search_space(tune.space).space:
        range_ = tune.space[dimension.name]
        if isinstance(range_, Range) and range_.min < range_.max and dimension.name in top.hyperparameters:
            value = top.hyperparameters[dimension.name]
            position = dimension.value_to_prob(value)
            if value in (range_.min, range_.max) or min(position, 1 - position) < EDGE:
                at_end.append(f"{dimension.name} {value:.4g}")
    if not at_end:
        return None
    return (
        f"note: the best trial is at the edge of the space ({', '.join(at_end)}); a wider one may hold better"
    )


def doubt(choice: Choice, tune: Tune, form: str) -> str | None:
    """Return a warning if a trial, of a smaller budget, scores far better than the one taken; else None."""
    top, chosen = (trial.evaluation for trial in (choice.top, choice.trial))
    better = abs(top.scores[tune.objective] - chosen.scores[tune.objective])
    if better <= 3 * (top.standard_error or 0.0) + tune.tolerance:
        return None
    return (
        f"warning: trial {choice.top.number}, after {top.epochs} epochs, has {tune.objective} "
        f"{top.scores[tune.objective]:{form}}, far better than the one that is chosen from those with the "
        "full budget; see metrics/plots/trials.csv, and narrow tune.space or raise tune.max_epochs"
    )
