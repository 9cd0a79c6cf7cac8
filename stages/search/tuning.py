"""The body of the stage `tune`: from params.yaml and the prepared data to the search's outputs."""

import time

import numpy as np
import pandas as pd

from stages.base import console, splits
from stages.base.files import write_csv, write_json
from stages.base.params import Params, Tune
from stages.base.section import shown
from stages.compute.cluster import Cluster
from stages.compute.replicates import listed
from stages.compute.runner import Runner
from stages.search import oracles
from stages.search.scoring import CrossValidation, Evaluation, Holdout
from stages.search.search import Trial, as_good, best, rehearse, search
from stages.training.score import NAME
from stages.training.trainer import LOSS, SCORE, build


def scoring_of(settings: Params) -> Holdout | CrossValidation:
    """Return how a trial is scored: for `sklearn` on folds, for all other strategies on the validation examples.

    Raises:
        UserError: the score or the data do not allow what `tune` in params.yaml says.
    """
    tune = settings.tune
    monitor = tune.early_stopping and tune.early_stopping.monitor
    for name, said, known in (
        ("objective", tune.objective, (SCORE,) if tune.strategy == "sklearn" else (SCORE, LOSS)),
        ("early_stopping.monitor", monitor, (SCORE, LOSS, NAME, "loss")),
    ):
        if said is not None and said not in known:
            allowed = f"with tune.strategy {tune.strategy} should be one of {', '.join(known)}"
            raise console.UserError(f"params.yaml: tune.{name} is {shown(said)}, but {allowed}")
    train, validation = (splits.load(folder) for folder in splits.TRAINED_ON)
    labels = np.concatenate([train.labels, validation.labels])
    if tune.strategy == "sklearn":
        fewest, where = (np.bincount(labels).min(), "a class has") if train.classes else (len(labels), "there are")
        if tune.sklearn.cv > fewest:
            raise console.UserError(f"params.yaml: tune.sklearn.cv is {tune.sklearn.cv}, but {where} {fewest} examples only")
        return CrossValidation(labels, tune.sklearn.cv, settings.seed, tune.executions_per_trial)
    sizes = {"train_size": len(train.labels), "size": len(labels)}
    common = {"seed": settings.seed, "executions": tune.executions_per_trial}
    return Holdout(**sizes, objective=tune.objective, early_stopping=tune.early_stopping, **common)


def row(trial: Trial, choice: str, limit: float | None, baseline_parameters: int) -> dict[str, object]:
    """Return `trial` as a row of trials.csv; `limit` is the worst score that the selection takes for as good as this one."""
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
        "baseline_parameters": baseline_parameters,
        "failure": evaluation.failure,
    }


def lines(trials: list[Trial], chosen: Trial, tune: Tune) -> pd.DataFrame:
    """Return a row for each trial and searched hyperparameter: its value, and its position in the space, from 0 to 1."""
    space = oracles.search_space(tune.space).space
    return pd.DataFrame(
        {
            "trial": trial.number,
            "hyperparameter": dimension.name,
            "value": trial.hyperparameters[dimension.name],
            "position": round(dimension.value_to_prob(trial.hyperparameters[dimension.name]), 6),
            "dimensions": len(space),
            "budget": trial.budget,
            tune.objective: trial.evaluation.scores[tune.objective],
            "standard_error": trial.evaluation.standard_error,
            "chosen": "yes" if trial is chosen else "no",
        }
        for trial in trials
        for dimension in space
        if not trial.evaluation.failure
    )


def brief(trial: Trial, tune: Tune) -> dict:
    """Return what tune.json says of a trial that is worth comparing."""
    return {
        "trial": trial.number,
        "hyperparameters": {name: trial.hyperparameters[name] for name in tune.space},
        "parameters": trial.evaluation.parameters,
        "score": trial.evaluation.scores[tune.objective],
        "epoch": trial.evaluation.best_epoch,
        "standard_error": trial.evaluation.standard_error,
    }


class Progress:
    """Shows the best score in the bar and, where there is no terminal to draw it on, each trial in a line as it is done."""

    def __init__(self, bar, count: int, names: list[str], objective, form: str):
        self.bar, self.count, self.names, self.objective, self.form = bar, count, names, objective, form
        self.trials: list[Trial] = []

    def __call__(self, trial: Trial) -> None:
        self.trials.append(trial)
        top, name = best(self.trials, self.objective), self.objective.name
        so_far = f"best={top.evaluation.scores[name]:{self.form}}" if top else "no score yet"
        self.bar.set_postfix_str(so_far, refresh=False)
        if self.bar.disable:
            tried = " ".join(f"{name}={trial.hyperparameters[name]}" for name in self.names)
            score = trial.evaluation.failure or f"{trial.evaluation.scores[name]:{self.form}}"
            done = f"{len(self.trials)}/{self.count} trial {trial.number}"
            print(f"{done}: {tried} epochs={trial.evaluation.epochs} {name}={score} {so_far}", flush=True)


def tune(settings: Params, cluster: Cluster) -> None:
    """Search on `cluster`; write data/tune/hyperparameters.json, metrics/tune.json and metrics/plots/{trials,space}.csv.

    Raises:
        UserError: all trials failed, or params.yaml does not fit the score or the data.
    """
    start, form = time.perf_counter(), console.decimals(settings.tune.tolerance)
    tune, objective, store = settings.tune, settings.tune.objective, settings.runtime.store
    scoring = scoring_of(settings)
    if taken := row(Trial(0, {}, 0, Evaluation()), "", None, 0).keys() & settings.baseline.model_dump():
        what = f"{min(taken)} is a column of metrics/plots/trials.csv; give the hyperparameter another name"
        raise console.UserError(f"stages/base/hyperparameters.py: {what}")
    oracle = oracles.create(tune, settings.seed)
    budgets, epochs = rehearse(tune, settings.seed)
    if max(budgets) < tune.max_epochs:
        raise console.UserError(
            f"params.yaml: tune.space is too small for hyperband: it would try {len(budgets)} networks, none of them for "
            f"tune.max_epochs ({tune.max_epochs}); use tune.strategy grid, which tries all"
        )
    epochs *= len(scoring.trainings({}))
    with console.progress_bar("tune", epochs) as bar:
        runner = Runner(cluster, settings, scoring.subsets, early_stopping=scoring.early_stopping, progress=bar.update)
        bar.write(f"tune: up to {len(budgets)} trials, {epochs} epochs; {len(runner.stored)} trainings in {store}")
        trials = search(
            oracle,
            runner.run,
            scoring,
            fixed=settings.baseline.model_dump(),
            max_epochs=tune.max_epochs,
            trials_at_once=getattr(getattr(tune, tune.strategy), "trials_at_once", None),
            report=Progress(bar, len(budgets), list(tune.space), oracle.objective, form),
        )

    top = best(trials, oracle.objective)
    if top is None:
        raise console.UserError(f"all trials ({len(trials)}) failed; the first: {trials[0].evaluation.failure}")
    by_rule = {
        "tolerance": as_good(trials, oracle.objective, tune.tolerance),
        "one_standard_error": as_good(trials, oracle.objective),
        "best": [top],
    }
    chosen = by_rule[tune.selection][0]
    reference = best(by_rule[tune.selection], oracle.objective) or top
    choices = {reference.number: "best"}
    choices[chosen.number] = "best, chosen" if chosen is reference else "chosen"
    in_score = objective == SCORE  # as the tolerance is
    near, width = {
        "tolerance": (f"{tune.tolerance:g}{'' if in_score else f' in {SCORE}'}", tune.tolerance if in_score else None),
        "one_standard_error": ("one standard error", reference.evaluation.standard_error),
        "best": ("", 0.0),
    }[tune.selection]
    worse = -1 if oracle.objective.direction == "max" else 1
    limit = None if width is None else reference.evaluation.scores[objective] + worse * width
    train = splits.load(splits.TRAINED_ON[0])
    baseline = build(settings.baseline.model_dump(), train.inputs.shape[1:], train.outputs, settings.seed).count_params()
    epochs = sum(runner.epochs.values())
    rows = (row(trial, choices.get(trial.number, ""), limit if trial is reference else None, baseline) for trial in trials)
    write_csv("metrics/plots/trials.csv", pd.DataFrame(rows))
    write_csv("metrics/plots/space.csv", lines(trials, chosen, tune))
    write_json("data/tune/hyperparameters.json", chosen.hyperparameters)
    write_json(
        "metrics/tune.json",
        {
            "strategy": tune.strategy,
            "selection": tune.selection,
            "hyperparameters": chosen.hyperparameters,
            "parameters": chosen.evaluation.parameters,
            "objective": objective,
            "score": chosen.evaluation.scores[objective],
            "epoch": chosen.evaluation.best_epoch,
            **{rule: {**brief(found[0], tune), "candidates": len(found)} for rule, found in by_rule.items()},
            "trials": len(trials),
            "failed_trials": sum(trial.evaluation.failure is not None for trial in trials),
            "epochs": epochs,
            "seconds": round(time.perf_counter() - start, 3),
        },
    )

    def found(trial: Trial) -> str:
        return f"{listed(brief(trial, tune)['hyperparameters'])} with {objective} {trial.evaluation.scores[objective]:{form}}"

    why = "the best"
    if chosen is not top:
        count = len(by_rule[tune.selection])
        why = f"the smallest of {count} within {near} of the best with the full budget ({found(reference)})"
    reused = f"{runner.epochs_reused} of them from {store}"
    print(f"tune: {found(chosen)}, {why}; {len(trials)} trials; {epochs} epochs, {reused}")
