"""The body of the stage `tune`: from params.yaml and the prepared images to the search's outputs."""

import time

import numpy as np
import pandas as pd

from stages.base import console, splits
from stages.base.files import write_csv, write_json
from stages.base.params import Params, Tune
from stages.base.splits import Split
from stages.compute.cluster import Cluster
from stages.compute.replicates import PREPARED, listed
from stages.compute.runner import Runner
from stages.search import oracles
from stages.search.scoring import CrossValidation, Holdout
from stages.search.search import Trial, best, one_standard_error, rehearse, search
from stages.training.trainer import EarlyStopping


def data_and_scoring(settings: Params) -> tuple[Split, Holdout | CrossValidation]:
    """Return the training images followed by the validation images, and how a trial is scored on them.

    That is on stratified folds of all of them for `sklearn`, on the validation images for all other strategies.
    """
    tune = settings.tune
    train, validation = (splits.load(PREPARED / name) for name in ("train", "validation"))
    data = splits.join(train, validation)
    common = {"seed": settings.seed, "executions": tune.executions_per_trial}
    if tune.strategy == "sklearn":
        fewest = int(np.bincount(data.labels).min())
        if tune.sklearn.cv > fewest:
            raise console.UserError(f"params.yaml: tune.sklearn.cv is {tune.sklearn.cv}, but a class has {fewest} images only")
        return data, CrossValidation(data.labels, tune.sklearn.cv, **common)
    early_stopping = EarlyStopping(**tune.early_stopping.model_dump()) if tune.early_stopping else None
    sizes = {"train_size": len(train.labels), "size": len(data.labels)}
    return data, Holdout(**sizes, objective=tune.objective, early_stopping=early_stopping, **common)


def row(trial: Trial, chosen: Trial) -> dict[str, object]:
    """Return `trial` as a row of trials.csv."""
    evaluation = trial.evaluation
    return {
        "trial": trial.number,
        **trial.hyperparameters,
        "budget": trial.budget,
        "epochs": evaluation.epochs,
        **evaluation.scores,
        "standard_error": evaluation.standard_error,
        "epochs_to_target": evaluation.epochs_to_target,
        "seconds_per_epoch": evaluation.seconds_per_epoch and round(evaluation.seconds_per_epoch, 3),
        "parameters": evaluation.parameters,
        "chosen": "yes" if trial is chosen else "no",
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


def brief(trial: Trial, tune: Tune) -> dict[str, object]:
    """Return what tune.json says of a trial that is worth comparing."""
    return {
        "trial": trial.number,
        "hyperparameters": {name: trial.hyperparameters[name] for name in tune.space},
        "parameters": trial.evaluation.parameters,
        "score": trial.evaluation.scores[tune.objective],
        "standard_error": trial.evaluation.standard_error,
    }


class Progress:
    """Shows each trial as it is done: in a bar on a terminal, else a line each."""

    def __init__(self, bar, names: list[str], objective):
        self.bar, self.names, self.objective = bar, names, objective
        self.trials: list[Trial] = []

    def __call__(self, trial: Trial) -> None:
        self.trials.append(trial)
        tried = " ".join(f"{name}={trial.hyperparameters[name]}" for name in self.names)
        score = trial.evaluation.failure or f"{trial.evaluation.scores[self.objective.name]:.4f}"
        line = f"trial {trial.number}: {tried} epochs={trial.evaluation.epochs} {self.objective.name}={score}"
        top = best(self.trials, self.objective)
        line += f" best={top.evaluation.scores[self.objective.name]:.4f}" if top else ""
        self.bar.set_postfix_str(line)
        self.bar.update()
        if self.bar.disable:
            print(f"{len(self.trials)}/{self.bar.total} {line}", flush=True)


def tune(settings: Params, cluster: Cluster) -> None:
    """Search on `cluster`; write data/tune/hyperparameters.json, metrics/tune.json and metrics/plots/{trials,space}.csv.

    Raises:
        UserError: all trials failed.
    """
    start = time.perf_counter()
    tune, objective = settings.tune, settings.tune.objective
    oracle = oracles.create(tune, settings.seed)
    data, scoring = data_and_scoring(settings)
    runner = Runner(cluster, settings, data, scoring.subsets, early_stopping=scoring.early_stopping)
    with console.progress_bar(total=len(rehearse(tune, settings.seed)), unit="trial") as bar:
        trials = search(
            oracle,
            runner.run,
            scoring,
            fixed=settings.baseline.model_dump(),
            max_epochs=tune.max_epochs,
            trials_at_once=getattr(getattr(tune, tune.strategy), "trials_at_once", None),
            target=tune.target_accuracy,
            report=Progress(bar, list(tune.space), oracle.objective),
        )

    top, as_good = best(trials, oracle.objective), one_standard_error(trials, oracle.objective)
    if top is None:
        raise console.UserError(f"all trials ({len(trials)}) failed; the first: {trials[0].evaluation.failure}")
    chosen = as_good[0] if tune.selection == "one_standard_error" else top
    epochs = sum(runner.epochs.values())
    write_csv("metrics/plots/trials.csv", pd.DataFrame(row(trial, chosen) for trial in trials))
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
            "best": brief(top, tune),
            "one_standard_error": {**brief(as_good[0], tune), "as_good_as_the_best": len(as_good)},
            "target_accuracy": tune.target_accuracy,
            "trials": len(trials),
            "failed_trials": sum(trial.evaluation.failure is not None for trial in trials),
            "epochs_trained": epochs,
            "seconds": round(time.perf_counter() - start, 3),
        },
    )

    def found(trial: Trial) -> str:
        return f"{listed(brief(trial, tune)['hyperparameters'])} with {objective} {trial.evaluation.scores[objective]:.4f}"

    why = "the best"
    if chosen is not top:
        reference = found(best(as_good, oracle.objective))
        why = f"the smallest of {len(as_good)} within one standard error of the best with the full budget ({reference})"
    reused = f"{runner.epochs_reused} of them from {settings.runtime.store}"
    print(f"tune: {found(chosen)}, {why}; {len(trials)} trials; {epochs} epochs, {reused}")
