"""The body of the stage `tune`: from params.yaml and the prepared images to the search's outputs."""

import time
from pathlib import Path

import numpy as np
import pandas as pd

from stages import console, splits
from stages.files import shared_root, write_csv, write_json
from stages.params import Params, Tune
from stages.search import oracles
from stages.search.cluster import Cluster
from stages.search.evaluation import CrossValidation, Holdout
from stages.search.runner import Runner
from stages.search.search import Trial, best, one_standard_error, search
from stages.search.trials import Store
from stages.splits import Split
from stages.training import EarlyStopping


def data_and_protocol(settings: Params) -> tuple[Split, Holdout | CrossValidation]:
    """Return the training images followed by the validation images, and how a trial is scored on them.

    That is on stratified folds of all of them for `sklearn`, on the validation images for all other strategies.
    """
    tune = settings.tune
    train, validation = (splits.load(Path("data/prepared") / name) for name in ("train", "validation"))
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


def brief(trial: Trial, tune: Tune) -> dict[str, object]:
    """Return what tune.json says of a trial that is worth comparing."""
    return {
        "trial": trial.number,
        **{name: trial.hyperparameters[name] for name in tune.space},
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
    """Search on `cluster`; write data/tune/hyperparameters.json, metrics/tune.json and metrics/plots/trials.csv.

    Raises:
        UserError: all trials failed.
    """
    start = time.perf_counter()
    tune, objective = settings.tune, settings.tune.objective
    oracle = oracles.create(tune, settings.seed)
    data, protocol = data_and_protocol(settings)
    store = Store(shared_root() / settings.runtime.store, settings.runtime.store_gigabytes * 1e9)
    store.prune()
    runner = Runner(
        cluster, store, data, protocol.parts, batch_size=settings.train.batch_size, early_stopping=protocol.early_stopping
    )
    with console.progress_bar(total=oracles.most_trials(oracle), unit="trial") as bar:
        trials = search(
            oracle,
            runner.run,
            protocol,
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
    reaching = [trial for trial in trials if trial.evaluation.epochs_to_target]
    smallest = min(reaching, key=lambda t: (t.evaluation.parameters, t.evaluation.epochs_to_target), default=None)
    epochs = sum(runner.epochs.values())
    write_csv("metrics/plots/trials.csv", pd.DataFrame(row(trial, chosen) for trial in trials))
    write_json("data/tune/hyperparameters.json", chosen.hyperparameters)
    write_json(
        "metrics/tune.json",
        {
            "strategy": tune.strategy,
            "selection": tune.selection,
            **chosen.hyperparameters,
            "parameters": chosen.evaluation.parameters,
            "objective": objective,
            "score": chosen.evaluation.scores[objective],
            "best": brief(top, tune),
            "one_standard_error": {**brief(as_good[0], tune), "as_good_as_the_best": len(as_good)},
            "target_accuracy": tune.target_accuracy,
            "smallest_to_reach_target": smallest and {**brief(smallest, tune), "epochs": smallest.evaluation.epochs_to_target},
            "trials": len(trials),
            "failed_trials": sum(trial.evaluation.failure is not None for trial in trials),
            "epochs_trained": epochs,
            "seconds": round(time.perf_counter() - start, 3),
        },
    )

    def found(trial: Trial) -> str:
        values = ", ".join(f"{name} {trial.hyperparameters[name]}" for name in tune.space)
        return f"{values} with {objective} {trial.evaluation.scores[objective]:.4f}"

    why = "the best"
    if chosen is not top:
        reference = found(best(as_good, oracle.objective))
        why = f"the smallest of {len(as_good)} within one standard error of the best with the full budget ({reference})"
    reused = f"{runner.epochs_reused} of them from {settings.runtime.store}"
    print(f"tune: {found(chosen)}, {why}; {len(trials)} trials; {epochs} epochs, {reused}")
