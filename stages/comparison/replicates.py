"""The final trainings of a network, one for each seed; `baseline` and `retrain` both use this.

The seeds are not those of the search, which favours networks that were lucky with theirs.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from distributed import Client

from stages.base import console, splits
from stages.base.files import replacing, write_csv, write_json
from stages.base.params import Params
from stages.base.section import listed
from stages.compute.runner import Runner, Training
from stages.training.checkpoint import Checkpoint
from stages.training.score import NAME


def final_runner(client: Client, settings: Params) -> Runner:
    """Return the runner of the final trainings, which use all train and validation examples."""
    rows = np.arange(len(splits.load(splits.TRAINING).labels))
    return Runner(client, settings, {"everything": (rows, rows[:0])}, tests="stages.comparison.measure")


def train_and_test(
    name: str, hyperparameters: Mapping[str, object], epochs: int, settings: Params, runner: Runner
) -> dict:
    """Train the network for `epochs` epochs with each seed, and evaluate each on the test examples once.

    Writes metrics/NAME.json, metrics/plots/NAME.csv (a row for each epoch of each replicate) and, in
    data/NAME, network.json, model.keras, predictions.npy ((replicates, test examples, ...), see `predicted`)
    and scores.npy ((replicates, test examples or groups) float32, see `evaluation.values`). The model is
    that of replicate 1, good or bad: choosing the one with the best test score would be tuning on test
    examples.

    Returns:
        The content of metrics/NAME.json. Training metrics are running means over the last epoch with dropout
        on, as Keras reports them; `seconds_per_epoch` is the median while as many trainings run in parallel
        as there are workers.

    Raises:
        UserError: a training failed.
    """
    replicates = train_replicates(name, hyperparameters, epochs, settings, runner)
    checkpoints, tests = zip(*replicates, strict=True)
    scores = np.stack([test["scores"] for test in tests]).astype(np.float32)
    outputs = np.stack([test["outputs"] for test in tests])
    predictions = predicted(outputs, splits.load(splits.TEST).labels)
    folder = Path("data") / name
    save_model(folder / "model.keras", tests[0]["model"], tests[0]["unusable"])
    for file, array in (("predictions", predictions), ("scores", scores)):
        with replacing(folder / f"{file}.npy") as temporary:
            np.save(temporary, array, allow_pickle=False)
    network = {"hyperparameters": dict(hyperparameters), "epochs": epochs, "seed": settings.seed}
    write_json(folder / "network.json", network)
    histories = [
        pd.DataFrame({"replicate": number, "epoch": range(1, checkpoint.epoch + 1), **checkpoint.history})
        for number, checkpoint in enumerate(checkpoints, start=1)
    ]
    write_csv(Path("metrics/plots") / f"{name}.csv", pd.concat(histories).rename(columns={NAME: "score"}))
    losses, [seed] = [test["loss"] for test in tests], settings.seeds("final", 1)
    metrics = {"hyperparameters": hyperparameters, **figures(checkpoints, scores, losses, seed)}
    write_json(Path("metrics") / f"{name}.json", metrics)
    return metrics


def save_model(path: Path, content: bytes, unusable: str | None) -> None:
    """Write the result of `measure.keras_file` to `path`; print a warning if Keras cannot use it."""
    if content:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    else:
        path.unlink(missing_ok=True)
    if unusable:
        console.say(
            f"warning: {path} cannot be {'loaded' if content else 'saved'} ({unusable}); put "
            "@keras.saving.register_keras_serializable() above classes and functions of your own, give them "
            "get_config, or see docs/sharing.md"
        )


def train_replicates(
    name: str, hyperparameters: Mapping[str, object], epochs: int, settings: Params, runner: Runner
) -> list[tuple[Checkpoint, dict]]:
    """Return the checkpoint and the test results of each replicate, in the order of seeds.

    Raises:
        UserError: a training failed.
    """
    seeds = settings.seeds("final", settings.train.replicates)
    trainings = [Training(hyperparameters, seed, "everything") for seed in seeds]
    results: dict[Training, tuple[Checkpoint, dict]] = {}
    with console.progress_bar(name, len(seeds) * epochs) as bar:
        runner.progress = partial(console.advance, bar)
        stored = f"{console.count(len(runner.stored), 'training')} in {settings.runtime.store}"
        bar.write(f"{name}: {len(seeds)} trainings of {console.count(epochs, 'epoch')}; {stored}")
        for training, checkpoint, test in runner.run(dict.fromkeys(trainings, epochs)):
            if isinstance(checkpoint, str):
                problem = f"the network cannot be trained with {listed(hyperparameters)}: {checkpoint}"
                raise console.UserError(f"{name}: {problem}")
            results[training] = checkpoint, test
    return [results[training] for training in trainings]


def predicted(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the predictions of `outputs` (networks, n, ...) for `labels` (n, ...).

    These are classes, int32, if the network has an output for each class, or if labels are 0 and 1 and have
    one output each, a sigmoid or a logit. Otherwise they are the outputs, the first if a label has several.
    """
    integers, several = labels.dtype.kind != "f", outputs.ndim > labels.ndim + 1
    if integers and several and outputs.shape[-1] > 1:
        return outputs.argmax(-1).astype(np.int32)
    first = outputs[..., 0] if several else outputs
    if not integers or not np.isin(labels, (0, 1)).all():
        return first
    probabilities = first.min() >= 0 and first.max() <= 1
    return (first > (0.5 if probabilities else 0)).astype(np.int32)


def figures(checkpoints: Sequence[Checkpoint], scores: np.ndarray, losses: list[float], seed: int) -> dict:
    """Return the metrics of the replicates; `scores` as in scores.npy, `seed` of the first replicate."""
    means = scores.mean(1, dtype=np.float64).tolist()
    seconds = np.concatenate([checkpoint.seconds for checkpoint in checkpoints])
    return {
        "parameters": checkpoints[0].parameters,
        "epochs": checkpoints[0].epoch,
        "replicates": len(checkpoints),
        f"train_{NAME}": mean_and_std([checkpoint.history[NAME][-1] for checkpoint in checkpoints]),
        "train_loss": mean_and_std([checkpoint.history["loss"][-1] for checkpoint in checkpoints]),
        f"test_{NAME}": mean_and_std(means),
        "test_loss": mean_and_std(losses),
        "kept": {"replicate": 1, "seed": seed, f"test_{NAME}": means[0], "test_loss": losses[0]},
        "seconds_per_epoch": round(float(np.median(seconds)), 3),
    }


def mean_and_std(values: list[float]) -> dict[str, float]:
    """Return the mean and the sample standard deviation (n - 1) of `values`."""
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1))}


def result_line(name: str, metrics: dict) -> str:
    """Return the result of `train_and_test` in one line."""
    test = metrics[f"test_{NAME}"]
    form = console.decimals(test["std"])
    return (
        f"{name}: {listed(metrics['hyperparameters'])}: {metrics['parameters']:,} parameters, "
        f"{metrics['replicates']} trainings of {console.count(metrics['epochs'], 'epoch')}, "
        f"test {NAME.replace('_', ' ')} {test['mean']:{form}} (standard deviation {test['std']:{form}})"
    )
