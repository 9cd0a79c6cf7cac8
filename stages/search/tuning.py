"""The body of the stage `tune`: from params.yaml and the prepared images to the search's outputs."""

import time
from pathlib import Path

import pandas as pd

from stages import console, splits
from stages.files import shared_root, write_csv, write_json
from stages.params import Params
from stages.search import oracles
from stages.search.cluster import Cluster
from stages.search.evaluation import CrossValidation, Holdout
from stages.search.runner import Runner
from stages.search.search import Trial, best, search
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
        return data, CrossValidation(data.labels, tune.sklearn.cv, **common)
    early_stopping = EarlyStopping(**tune.early_stopping.model_dump()) if tune.early_stopping else None
    sizes = {"train_size": len(train.labels), "size": len(data.labels)}
    return data, Holdout(**sizes, objective=tune.objective, early_stopping=early_stopping, **common)


def row(trial: Trial) -> dict[str, object]:
    """Return `trial` as a row of trials.csv."""
    evaluation = trial.evaluation
    return {
        "trial": trial.number,
        **trial.hyperparameters,
        "budget": trial.budget,
        "epochs": evaluation.epochs,
        **evaluation.scores,
        "parameters": evaluation.parameters,
        "failure": evaluation.failure,
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
    runner = Runner(cluster, store, protocol, data, settings.train.batch_size)
    with console.progress_bar(total=oracles.most_trials(oracle), unit="trial") as bar:
        trials = search(
            oracle,
            runner.run,
            protocol,
            fixed=settings.baseline.model_dump(),
            max_epochs=tune.max_epochs,
            trials_at_once=getattr(getattr(tune, tune.strategy), "trials_at_once", None),
            report=Progress(bar, list(tune.space), oracle.objective),
        )

    winner = best(trials, oracle.objective)
    if winner is None:
        raise console.UserError(f"all trials ({len(trials)}) failed; the first: {trials[0].evaluation.failure}")
    epochs = sum(runner.epochs.values())
    write_csv("metrics/plots/trials.csv", pd.DataFrame(map(row, trials)))
    write_json("data/tune/hyperparameters.json", winner.hyperparameters)
    write_json(
        "metrics/tune.json",
        {
            "strategy": tune.strategy,
            **winner.hyperparameters,
            "parameters": winner.evaluation.parameters,
            "objective": objective,
            "best_score": winner.evaluation.scores[objective],
            "trials": len(trials),
            "failed_trials": sum(trial.evaluation.failure is not None for trial in trials),
            "epochs_trained": epochs,
            "seconds": round(time.perf_counter() - start, 3),
        },
    )
    found = ", ".join(f"{name} {winner.hyperparameters[name]}" for name in tune.space)
    print(
        f"tune: {found} with {objective} {winner.evaluation.scores[objective]:.4f}, the best of {len(trials)} trials; "
        f"{epochs} epochs, {runner.epochs_reused} of them from {settings.runtime.store}"
    )
