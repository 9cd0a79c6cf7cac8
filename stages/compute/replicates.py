"""The final trainings of a network, once for each seed: the same for baseline and retrain, so that their figures compare.

Their seeds are not those of the search, whose scores would flatter a network that was lucky with its seed.
"""

import json
import statistics
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from stages.base import console, splits
from stages.base.files import replacing, write_csv, write_json
from stages.base.hyperparameters import Hyperparameters
from stages.base.params import Params
from stages.compute.cluster import Cluster
from stages.compute.runner import Runner
from stages.compute.worker import Training
from stages.training import trainer
from stages.training.backend import keras, tf
from stages.training.score import NAME, score
from stages.training.trainer import Checkpoint, Subset

FIRST_SEED = 1000  # after `seed`; a trial of the search has at most so many seeds, from `seed` on


def train_and_test(name: str, hyperparameters: Hyperparameters, settings: Params, cluster: Cluster) -> dict[str, object]:
    """Train the network once for each seed on train + validation for `train.epochs`, then touch the test examples once.

    Writes metrics/NAME.json, metrics/plots/NAME.csv (a row an epoch of each replicate) and, below data/NAME,
    hyperparameters.json, predictions.npy and scores.npy ((replicates, test examples): the predicted classes, int32, or numbers,
    float32; the score of each, float32) and model.keras. That is replicate 1, good or bad: to keep the best by its test score
    would be to train on the test examples.

    Returns:
        What is in metrics/NAME.json. Those of training are of the last epoch's running means with dropout on, as Keras reports
        them; `seconds_per_epoch` is the median with as many trainings side by side as there are workers.

    Raises:
        UserError: a training failed.
    """
    chosen = hyperparameters.model_dump()
    checkpoints = train_replicates(name, chosen, settings, cluster)
    test = splits.load(splits.PREPARED / "test")
    train, subset = splits.load(splits.PREPARED / "train"), Subset.of(test)
    network = trainer.build(chosen, test.inputs.shape[1:], train.outputs, settings.seed)
    evaluate, predict = trainer.evaluator(network), trainer.predictor(network)
    tested: list[tuple] = []
    for checkpoint in reversed(checkpoints):  # the first, which is kept, comes last
        trainer.restore(network, network.optimizer, checkpoint)
        tested.insert(0, (*evaluate(subset), predict(test.inputs)))
    scores, _, losses, _, outputs = zip(*tested, strict=True)
    predictions = np.stack([output.argmax(1).astype(np.int32) if train.classes else output[:, 0] for output in outputs])
    metrics = {
        "hyperparameters": chosen,
        "parameters": checkpoints[0].parameters,
        "epochs": checkpoints[0].epoch,
        "replicates": len(checkpoints),
        f"train_{NAME}": mean_and_std([checkpoint.history[NAME][-1] for checkpoint in checkpoints]),
        "train_loss": mean_and_std([checkpoint.history["loss"][-1] for checkpoint in checkpoints]),
        f"test_{NAME}": mean_and_std(scores),
        "test_loss": mean_and_std(losses),
        "kept": {"replicate": 1, "seed": settings.seed + FIRST_SEED, f"test_{NAME}": scores[0], "test_loss": losses[0]},
        "seconds_per_epoch": round(statistics.median(second for checkpoint in checkpoints for second in checkpoint.seconds), 3),
    }
    folder = Path("data") / name
    save(network, folder / "model.keras")
    per_example = np.stack([score(subset.labels, tf.constant(output)).numpy() for output in outputs])
    for file, array in (("predictions", predictions), ("scores", per_example)):
        with replacing(folder / f"{file}.npy") as temporary:
            np.save(temporary, array, allow_pickle=False)
    write_json(folder / "hyperparameters.json", chosen)
    histories = [
        pd.DataFrame({"replicate": number, "epoch": range(1, checkpoint.epoch + 1), **checkpoint.history})
        for number, checkpoint in enumerate(checkpoints, start=1)
    ]
    write_csv(Path("metrics/plots") / f"{name}.csv", pd.concat(histories).rename(columns={NAME: "score"}))
    write_json(Path("metrics") / f"{name}.json", metrics)
    return metrics


def train_replicates(name: str, hyperparameters: dict[str, object], settings: Params, cluster: Cluster) -> list[Checkpoint]:
    """Return the trained checkpoints, one for each seed; UserError if one failed."""
    examples = sum(len(splits.load(folder).labels) for folder in splits.TRAINED_ON)
    everything = {"everything": (np.arange(examples), np.arange(0))}
    first, replicates, epochs = settings.seed + FIRST_SEED, settings.train.replicates, settings.train.epochs
    trainings = [Training(hyperparameters, seed, "everything") for seed in range(first, first + replicates)]
    checkpoints: dict[Training, Checkpoint] = {}
    with console.progress_bar(name, replicates * epochs) as bar:
        runner = Runner(cluster, settings, everything, exact=True, progress=bar.update)
        bar.write(
            f"{name}: {replicates} trainings of {epochs} epochs; {len(runner.stored)} trainings in {settings.runtime.store}"
        )
        for task, checkpoint in runner.run(dict.fromkeys(trainings, epochs)):
            failure = checkpoint if isinstance(checkpoint, str) else checkpoint.failure
            if isinstance(checkpoint, str) or failure:
                raise console.UserError(f"{name}: the network cannot be trained with {hyperparameters}: {failure}")
            checkpoints[task] = checkpoint
    return [checkpoints[task] for task in trainings]


def save(network: keras.Model, path: Path) -> None:
    """Write `network` as a `.keras` file whose bytes depend on the model alone.

    It is Keras's own file without the time it was saved at, and with memory addresses (`shared_object_id`) as plain numbers.
    """
    numbers: dict[int, int] = {}

    def reproducible(entry: dict) -> dict:
        entry.pop("date_saved", None)
        if "shared_object_id" in entry:
            entry["shared_object_id"] = numbers.setdefault(entry["shared_object_id"], len(numbers))
        return entry

    with replacing(path) as temporary:
        keras.saving.save_model(network, temporary)
        with zipfile.ZipFile(temporary) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, content in contents.items():
                if name.endswith(".json"):
                    content = json.dumps(json.loads(content, object_hook=reproducible)).encode()
                archive.writestr(zipfile.ZipInfo(name), content)


def mean_and_std(values) -> dict[str, float]:
    """Return the mean of `values` and their standard deviation (of a sample: divided by n - 1)."""
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1))}


def summary(name: str, metrics: dict) -> str:
    """Return the result of `train_and_test` in one line."""
    score = metrics[f"test_{NAME}"]
    form = console.decimals(score["std"])
    return (
        f"{name}: {listed(metrics['hyperparameters'])}: {metrics['parameters']:,} parameters, {metrics['replicates']} "
        f"trainings, test {NAME.replace('_', ' ')} {score['mean']:{form}} (standard deviation {score['std']:{form}})"
    )


def listed(hyperparameters: Mapping[str, object]) -> str:
    """Return hyperparameters for people: `units 512, dropout 0.2`."""
    shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in hyperparameters.items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items())
