"""Search for the hyperparameters: KerasTuner's oracles ask, the validation images decide, the test images are never read.

Reads `seed`, `tune`, `train.batch_size` and `baseline` (for what is not in the space); writes data/tune/hyperparameters.json,
metrics/tune.json and metrics/plots/trials.csv.
"""

import time
from pathlib import Path

import pandas as pd

from stages import console, params, splits
from stages.files import write_csv, write_json
from stages.params import Params
from stages.search import oracles
from stages.search.evaluation import CrossValidation, Holdout
from stages.search.search import Trial, best, search
from stages.training import EarlyStopping


def evaluation(settings: Params) -> Holdout | CrossValidation:
    """Return what a trial is scored by: stratified folds for `sklearn`, the validation split for all other strategies."""
    tune = settings.tune
    train, validation = (splits.load(Path("data/prepared") / name) for name in ("train", "validation"))
    common = {"batch_size": settings.train.batch_size, "seed": settings.seed, "executions": tune.executions_per_trial}
    if tune.strategy == "sklearn":
        return CrossValidation(splits.join(train, validation), tune.sklearn.cv, **common)
    early_stopping = EarlyStopping(**tune.early_stopping.model_dump()) if tune.early_stopping else None
    return Holdout(train, validation, tune.objective, early_stopping=early_stopping, **common)


def row(trial: Trial) -> dict[str, object]:
    """Return `trial` as a row of trials.csv."""
    return {
        "trial": trial.number,
        **trial.hyperparameters,
        "budget": trial.budget,
        "epochs": trial.evaluation.epochs,
        **trial.evaluation.scores,
        "parameters": trial.evaluation.parameters,
    }


def main() -> None:
    start = time.perf_counter()
    settings = params.load()
    tune, objective = settings.tune, settings.tune.objective
    oracle = oracles.create(tune, settings.seed)
    evaluate = evaluation(settings)
    trials = []
    with console.progress_bar(total=oracles.most_trials(oracle), unit="trial") as bar:
        for trial in search(
            oracle,
            evaluate,
            fixed=settings.baseline.model_dump(),
            max_epochs=tune.max_epochs,
            trials_at_once=getattr(getattr(tune, tune.strategy), "trials_at_once", None),
        ):
            trials.append(trial)
            tried = " ".join(f"{name}={trial.hyperparameters[name]}" for name in tune.space)
            score, top = (t.evaluation.scores[objective] for t in (trial, best(trials, oracle.objective)))
            line = f"{tried} epochs={trial.evaluation.epochs} {objective}={score:.4f} best={top:.4f}"
            bar.set_postfix_str(line)
            bar.update()
            if bar.disable:
                print(f"trial {trial.number}/{bar.total}: {line}", flush=True)

    winner = best(trials, oracle.objective)
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
            "epochs_trained": evaluate.epochs_trained,
            "seconds": round(time.perf_counter() - start, 3),
        },
    )
    found = ", ".join(f"{name} {winner.hyperparameters[name]}" for name in tune.space)
    print(f"tune: {found} with {objective} {winner.evaluation.scores[objective]:.4f}, the best of {len(trials)} trials")


if __name__ == "__main__":
    console.run(main)
