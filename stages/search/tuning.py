"""The body of the stage `tune`: run the search, choose a trial, write the outputs."""

import time
from bisect import insort
from dataclasses import dataclass
from functools import partial

import pandas as pd
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance
from tqdm import tqdm

from stages.base import console
from stages.base.files import write_csv, write_json
from stages.base.params import Params, Range, Tune
from stages.base.section import listed
from stages.compute.runner import Runner
from stages.search import oracles
from stages.search.scoring import Scoring, trainings
from stages.search.search import Report, Trial, as_good, best, goodness, rehearse, search
from stages.training.evaluation import LOSS, SCORE

EDGE = 0.05  # share of a range at either end that counts as its edge
TRIALS = "metrics/plots/trials.csv"
FEWEST_SCORES = 5  # different scores that are needed to estimate importance


@dataclass(frozen=True)
class Choice:
    """The trial that the search chooses, and why.

    Attributes:
        trial: the chosen one, the smallest of those that `tune.selection` considers equally good.
        reference: the best of these.
        top: the best of all, whatever their budget.
        by_rule: for each rule of selection, the trials that it considers equally good, smallest first.
        limit: the worst `tune.objective` that the rule considers as good as the reference's; None if the rule
            compares another score.
    """

    trial: Trial
    reference: Trial
    top: Trial
    by_rule: dict[str, list[Trial]]
    limit: float | None

    def roles(self, trial: Trial) -> str:
        """Return the roles of `trial` in the choice, for trials.csv."""
        baseline, reference, chosen = trial.number == 0, trial is self.reference, trial is self.trial
        roles = {"baseline": baseline, "best": reference, "chosen": chosen}
        return ", ".join(role for role, applies in roles.items() if applies)


def choose(trials: list[Trial], tune: Tune) -> Choice:
    """Return the choice by `tune.selection`; UserError if all trials failed."""
    objective = tune.objective
    top = best(trials, objective)
    if top is None:
        why = trials[0].evaluation.failure
        raise console.UserError(f"all trials ({len(trials)}) failed; the first: {why}")
    by_rule = {
        "tolerance": as_good(trials, objective, tune.tolerance),
        "one_standard_error": as_good(trials, objective),
        "best": [top],
    }
    good = by_rule[tune.selection]
    reference = max(good, key=lambda trial: (goodness(trial, objective), -trial.number))
    width = {
        "tolerance": tune.tolerance if objective == SCORE else None,  # it refers to that score
        "one_standard_error": reference.evaluation.standard_error,
        "best": 0.0,
    }[tune.selection]
    worse = 1 if objective == LOSS else -1
    limit = None if width is None else reference.evaluation.scores[objective] + worse * width
    return Choice(good[0], reference, top, by_rule, limit)


def row(trial: Trial, objective: str, choice: Choice | None = None) -> dict[str, object]:
    """Return `trial` as a row of trials.csv."""
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
        "choice": choice.roles(trial) if choice else "",
        "limit": choice.limit if choice and trial is choice.reference else None,
        "objective": objective,
        "failure": evaluation.failure,
    }


def space_rows(trials: list[Trial], chosen: Trial, tune: Tune) -> pd.DataFrame:
    """Return the table space.csv: a row for each trial and searched hyperparameter.

    `position` is where the value is in its range, from 0 to 1. `least` and `greatest` are the ends of that
    range. `score` is the value of `objective`.
    """
    space = oracles.search_space(tune.space).space
    rows = [
        {
            "trial": trial.number,
            "hyperparameter": dimension.name,
            "value": str(value),  # in a column of floats, 32 would become 32.0
            "position": round(dimension.value_to_prob(value), 6),
            "least": str(tune.space[dimension.name].ends[0]),
            "greatest": str(tune.space[dimension.name].ends[1]),
            "dimensions": len(space),
            "budget": trial.budget,
            "objective": tune.objective,
            "score": trial.evaluation.scores[tune.objective],
            "standard_error": trial.evaluation.standard_error,
            "chosen": "yes" if trial is chosen else "no",
        }
        for trial in trials
        if not trial.evaluation.failure
        for dimension in space
        if tune.space[dimension.name].has(value := trial.hyperparameters.get(dimension.name))
    ]
    return with_importance(pd.DataFrame(rows)) if rows else pd.DataFrame()


def with_importance(table: pd.DataFrame) -> pd.DataFrame:
    """Return `table` with each hyperparameter's `importance`, and `r2`, which tells how far to trust it.

    A random forest predicts the scores of the trials of the full budget. The importance of a hyperparameter
    is how much worse it predicts once that is shuffled (scikit-learn's `permutation_importance`), as a share
    of the sum. `r2` is the forest's out-of-bag R2. An inactive hyperparameter is -1. Both are empty if there
    is one hyperparameter only, or too few different scores.
    """
    full = table[table["budget"] == table["budget"].max()]
    positions = full.pivot(index="trial", columns="hyperparameter", values="position").fillna(-1)
    scores = full.groupby("trial")["score"].first()
    if positions.shape[1] < 2 or scores.nunique() < FEWEST_SCORES:
        return table.assign(importance=None, r2=None)
    inputs = positions.to_numpy()
    forest = RandomForestRegressor(oob_score=True, random_state=0, n_jobs=1).fit(inputs, scores)
    importances = permutation_importance(forest, inputs, scores, n_repeats=10, random_state=0, n_jobs=1)
    drops = pd.Series(importances.importances_mean.clip(0), index=positions.columns)
    shares = table["hyperparameter"].map(drops / max(drops.to_numpy().sum(), 1e-12)).round(3)
    return table.assign(importance=shares, r2=round(float(forest.oob_score_), 3))


def brief(trial: Trial, tune: Tune) -> dict:
    """Return what tune.json has on one trial."""
    return {
        "trial": trial.number,
        "hyperparameters": {n: value for n, value in trial.hyperparameters.items() if n in tune.space},
        "parameters": trial.evaluation.parameters,
        "score": None if trial.evaluation.failure else trial.evaluation.scores[tune.objective],
        "epoch": trial.evaluation.best_epoch,
        "standard_error": trial.evaluation.standard_error,
    }


def shown_score(trial: Trial, tune: Tune) -> str:
    """Return the score of `trial` with as many digits as its standard error justifies."""
    digits = console.decimals(trial.evaluation.standard_error or 0.0)
    return f"{trial.evaluation.scores[tune.objective]:{digits}}"


def reporter(bar: tqdm, count: int, tune: Tune) -> Report:
    """Return a function to be called with each completed trial, of `count`.

    It shows the best score in the bar or, without a terminal, prints a line for the trial. It writes the
    trials so far to metrics/plots/trials.csv, so that plots can be watched while the search runs.
    """
    trials: list[Trial] = []

    def report(trial: Trial) -> None:
        insort(trials, trial, key=lambda trial: trial.number)
        write_csv(TRIALS, pd.DataFrame(row(each, tune.objective) for each in trials))
        top = best(trials, tune.objective)
        so_far = f"best={shown_score(top, tune)}" if top else "no score yet"
        bar.set_postfix_str(so_far, refresh=False)
        if bar.disable:
            evaluation = trial.evaluation
            tried = " ".join(f"{n}={value}" for n, value in trial.hyperparameters.items() if n in tune.space)
            failed = evaluation.failure and f"failed: {evaluation.failure}"
            score = failed or f"{tune.objective}={shown_score(trial, tune)}"
            done = f"{len(trials)}/{count} trial {trial.number}"
            print(f"{done}: {tried} epochs={evaluation.epochs} {score} {so_far}", flush=True)

    return report


def tune(settings: Params, scoring: Scoring, runner: Runner) -> None:
    """Search on `runner`'s workers; write data/tune, metrics/tune.json and metrics/plots/{trials,space}.csv.

    Raises:
        UserError: all trials failed, or params.yaml does not fit the score or the data.
    """
    start, tune, baseline = time.perf_counter(), settings.tune, settings.baseline
    oracle, (budgets, epochs) = oracles.create(tune, settings.seed), rehearse(tune, settings.seed)
    count, epochs = 1 + len(budgets), (tune.max_epochs + epochs) * len(trainings(scoring, {}))
    with console.progress_bar("tune", epochs) as bar:
        runner.progress = partial(console.advance, bar)
        stored = f"{console.count(len(runner.stored), 'training')} in {settings.runtime.store}"
        planned = f"up to {count} trials, one of the baseline, {console.count(epochs, 'epoch')}"
        bar.write(f"tune: {planned}; {stored}")
        trials = search(oracle, runner.run, scoring, tune, baseline, reporter(bar, count, tune))
        choice = choose(trials, tune)
    notes = oracles.only_random(oracle, tune), doubt(choice, tune), edge(choice.top, tune)
    for note in filter(None, notes):
        console.say(note)
    write_csv(TRIALS, pd.DataFrame(row(trial, tune.objective, choice) for trial in trials))
    write_csv("metrics/plots/space.csv", space_rows(trials, choice.trial, tune))
    chosen = {"hyperparameters": choice.trial.hyperparameters, "epochs": choice.trial.evaluation.best_epoch}
    write_json("data/tune/network.json", chosen)
    write_json("metrics/tune.json", metrics(trials, choice, tune, runner, start))
    counts = f"{len(trials)} trials, {sum(runner.epochs.values())} epochs, {runner.epochs_reused} of them"
    console.result(f"tune: {reason(choice, tune)}; {counts} from {settings.runtime.store}")


def metrics(trials: list[Trial], choice: Choice, tune: Tune, runner: Runner, start: float) -> dict:
    """Return the content of metrics/tune.json."""
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


def reason(choice: Choice, tune: Tune) -> str:
    """Return in words which trial is chosen, and why."""

    def named(trial: Trial) -> str:
        searched = listed(brief(trial, tune)["hyperparameters"])
        return f"{searched} with {tune.objective} {shown_score(trial, tune)}"

    why = "the best" if choice.reference is choice.top else "the best with the full budget"
    if choice.trial is not choice.reference:
        count, near = len(choice.by_rule[tune.selection]), "one standard error"
        if tune.selection == "tolerance":
            near = f"{tune.tolerance:g}" + ("" if tune.objective == SCORE else f" in {SCORE}")
        why = f"the smallest of {count} within {near} of {why} ({named(choice.reference)})"
    return f"{named(choice.trial)}, {why}"


def edge(top: Trial, tune: Tune) -> str | None:
    """Return a note if a hyperparameter of the best trial is at or near an end of its range; else None."""
    at_end = []
    for dimension in oracles.search_space(tune.space).space:
        range_ = tune.space[dimension.name]
        if isinstance(range_, Range) and range_.min < range_.max and dimension.name in top.hyperparameters:
            value = top.hyperparameters[dimension.name]
            # The baseline's may be outside the range, such as 0 on a log scale
            position = dimension.value_to_prob(value) if range_.has(value) else 0.0
            if value in (range_.min, range_.max) or min(position, 1 - position) < EDGE:
                at_end.append(f"{dimension.name} {value:.4g}")
    where = f"the edge of the space ({', '.join(at_end)})"
    return f"note: the best trial is at {where}; a wider space may have a better one" if at_end else None


def doubt(choice: Choice, tune: Tune) -> str | None:
    """Return a warning if a trial scores far better than the chosen one; else None.

    That trial may have a smaller budget, or a better loss while the tolerance refers to the score.
    """
    top, chosen = (trial.evaluation for trial in (choice.top, choice.trial))
    better = abs(top.scores[tune.objective] - chosen.scores[tune.objective])
    tolerance = tune.tolerance if tune.objective == SCORE else 0.0  # it refers to that score
    if better <= 3 * (top.standard_error or 0.0) + tolerance:
        return None
    advice = "take another tune.selection, one that compares tune.objective"
    if choice.top.budget < choice.trial.budget:
        advice = "narrow tune.space or raise tune.max_epochs: only trials with the full budget can be chosen"
    trained, score = console.count(top.epochs, "epoch"), shown_score(choice.top, tune)
    return (
        f"warning: trial {choice.top.number}, after {trained}, has {tune.objective} {score}, far better than "
        f"the chosen trial; see metrics/plots/trials.csv, and {advice}"
    )
