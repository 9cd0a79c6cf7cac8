"""One protocol for baseline and retrain, so that their numbers compare: same data, same budget, same seeds, same keys."""

import statistics
from pathlib import Path

import numpy as np
import pandas as pd

from stages import console, splits, training
from stages.files import replacing, shared_root, write_csv, write_json
from stages.params import Hyperparameters, Params
from stages.search.cluster import Cluster
from stages.search.evaluation import Training
from stages.search.runner import Runner
from stages.search.trials import Store
from stages.training import Part, State

PREPARED = Path("data/prepared")


def train_and_test(name: str, hyperparameters: Hyperparameters, settings: Params, cluster: Cluster) -> dict[str, object]:
    """Train the network once for each seed on train + validation for `train.epochs`, then touch the test images once.

    Writes metrics/NAME.json, metrics/plots/NAME.csv (a row an epoch of each replicate) and, below data/NAME,
    hyperparameters.json, predictions.npy ((replicates, test images) int32: the predicted classes) and model.keras. That is
    replicate 1, good or bad: to keep the best by its test accuracy would be to train on the test images.

    Returns:
        What is in metrics/NAME.json. `train_accuracy` and `train_loss` are of the last epoch's running means with dropout on,
        as Keras reports them; `seconds_per_epoch` is the median with as many trainings side by side as there are workers.

    Raises:
        UserError: a training failed.
    """
    chosen = hyperparameters.model_dump()
    states = train_replicates(name, chosen, settings, cluster)
    test = splits.load(PREPARED / "test")
    classes = splits.load(PREPARED / "train").classes
    networks = [training.build(chosen, test.images.shape[1:], classes, settings.seed, state) for state in states]
    predictions = np.stack([training.predict(network, test.images).argmax(1) for network in networks]).astype(np.int32)
    images = Part.of(test)
    accuracies, losses, _ = zip(*(training.evaluator(network)(images) for network in networks), strict=True)
    metrics = {
        **chosen,
        "parameters": states[0].parameters,
        "epochs": states[0].epoch,
        "replicates": len(states),
        "train_accuracy": mean_and_std([state.history["accuracy"][-1] for state in states]),
        "train_loss": mean_and_std([state.history["loss"][-1] for state in states]),
        "test_accuracy": mean_and_std(accuracies),
        "test_loss": mean_and_std(losses),
        "kept": {"replicate": 1, "seed": settings.seed, "test_accuracy": accuracies[0], "test_loss": losses[0]},
        "seconds_per_epoch": round(statistics.median(second for state in states for second in state.seconds), 3),
    }
    folder = Path("data") / name
    training.save(networks[0], folder / "model.keras")
    with replacing(folder / "predictions.npy") as temporary:
        np.save(temporary, predictions, allow_pickle=False)
    write_json(folder / "hyperparameters.json", chosen)
    histories = [
        pd.DataFrame({"replicate": number, "epoch": range(1, state.epoch + 1), **state.history})
        for number, state in enumerate(states, start=1)
    ]
    write_csv(Path("metrics/plots") / f"{name}.csv", pd.concat(histories))
    write_json(Path("metrics") / f"{name}.json", metrics)
    return metrics


def train_replicates(name: str, hyperparameters: dict[str, object], settings: Params, cluster: Cluster) -> list[State]:
    """Return the trained states, one for each of the seeds `seed`, `seed` + 1, ...; UserError if one failed."""
    data = splits.join(splits.load(PREPARED / "train"), splits.load(PREPARED / "validation"))
    everything = {"everything": (np.arange(len(data.labels)), np.arange(0))}
    store = Store(shared_root() / settings.runtime.store, settings.runtime.store_gigabytes * 1e9)
    runner = Runner(cluster, store, data, everything, batch_size=settings.train.batch_size, exact=True)
    seeds = range(settings.seed, settings.seed + settings.train.replicates)
    trainings = [Training(hyperparameters, seed, "everything") for seed in seeds]
    states: dict[Training, State] = {}
    with console.progress_bar(total=len(trainings), unit="training") as bar:
        for task, state in runner.run(dict.fromkeys(trainings, settings.train.epochs)):
            failure = state if isinstance(state, str) else state.failure
            if failure:
                raise console.UserError(f"{name}: {failure} with {hyperparameters}; a lower learning_rate usually helps")
            states[task] = state
            bar.update()
    return [states[task] for task in trainings]


def mean_and_std(values) -> dict[str, float]:
    """Return the mean of `values` and their standard deviation (of a sample: divided by n - 1)."""
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1))}


def in_words(name: str, metrics: dict[str, object]) -> str:
    """Return the result of `train_and_test` in one line."""
    accuracy = metrics["test_accuracy"]
    return (
        f"{name}: {metrics['units']} units, {metrics['parameters']:,} parameters, {metrics['replicates']} trainings: "
        f"test accuracy {accuracy['mean']:.4f} (standard deviation {accuracy['std']:.4f})"
    )
