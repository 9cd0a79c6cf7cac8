"""On a worker: a trained network tested, and how long two networks take, measured in turn in one process."""

import io
import json
import tempfile
import timeit
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from stages.compute.worker import Report, Session, plain
from stages.training import trainer
from stages.training.backend import keras
from stages.training.score import NAME
from stages.training.trainer import Trainer, predictor

EPOCH_PART = 40  # a fortieth of an epoch is timed, in many rounds
BATCH = 1000  # examples; predictions of one and of so many are timed
ROUNDS = 15


def test(session: Session, job: dict, checkpoint: dict | None, report: Report) -> dict:
    """Return what `train` returns and, unless it failed, what comes of the test examples, under `test`.

    Their `loss`, `outputs`, (examples, outputs) float32, and of a job with "model" a `.keras` file's bytes.
    """
    reached = session.reach(job, checkpoint, report)
    if isinstance(reached, str) or reached.failure:
        return {"failure": reached if isinstance(reached, str) else reached.failure}
    network, evaluate = session.evaluator(job["hyperparameters"])
    trainer.restore(network, reached)
    (_, _, loss, _), outputs = evaluate(session.tensors["test"])
    if not np.isfinite(loss):
        return {"failure": f"test_loss is {loss} after epoch {reached.epoch}"}
    model = keras_file(network) if job["model"] else None
    return plain(session, reached) | {"test": {"loss": loss, "outputs": outputs, "model": model}}


def compare(session: Session, job: dict, report: Report) -> dict:
    """Return `parameters` of both networks of `job`, seconds of an epoch, milliseconds of predictions."""
    train, test = session.data["training"], session.data["test"]
    networks = {name: session.build(hyperparameters, 0) for name, hyperparameters in job["networks"].items()}
    size = -(-len(train.labels) // EPOCH_PART)
    part, inputs = (
        session.tensors["training"].at(np.arange(size)),
        test.inputs[np.arange(BATCH) % len(test.inputs)],
    )
    predictors = [predictor(network) for network in networks.values()]
    trainers = [
        Trainer(network, part, batch_size=session.batch_size, seed=0) for network in networks.values()
    ]
    epochs = [partial(each.train_epoch, 0, {NAME: [], "loss": []}) for each in trainers]

    def predictions(examples: int, times: int) -> list[Callable[[], float]]:
        return [timed(partial(predict, inputs[:examples]), times) for predict in predictors]

    seconds = partial(compare_seconds, list(networks), rounds=ROUNDS)
    return {
        "parameters": {name: network.count_params() for name, network in networks.items()},
        "seconds_per_epoch": seconds(epochs, len(train.labels) / size),
        "milliseconds_per_prediction": seconds(predictions(1, 25), 1000),
        f"milliseconds_per_{BATCH}_predictions": seconds(predictions(BATCH, 4), 1000),
    }


def timed(function: Callable[[], object], times: int) -> Callable[[], float]:
    """Return a function that calls `function` so many times and returns the seconds that one call took."""
    return lambda: timeit.timeit(function, number=times) / times


def compare_seconds(
    names: list[str], functions: Sequence[Callable[[], float]], factor: float, *, rounds: int
) -> dict[str, float]:
    """Return the seconds that two functions return, after a first round that warms up.

    Each round calls both in turn. Under `names` are medians, in seconds times `factor`; `ratio` is the median
    of the rounds' ratios of the first to the second, `ratio_low` and `ratio_high` are their quartiles.
    """
    seconds = [[function() for function in functions] for _ in range(rounds + 1)]
    first, second = np.transpose(seconds[1:]) * factor
    low, middle, high = np.percentile(first / second, [25, 50, 75])
    figures = {"ratio": middle, "ratio_low": low, "ratio_high": high}
    medians = {name: np.median(values) for name, values in zip(names, (first, second), strict=True)}
    return {name: float(f"{figure:.4g}") for name, figure in {**medians, **figures}.items()}


def keras_file(network: keras.Model) -> bytes:
    """Return the content of a `.keras` file that depends on the model alone.

    It is Keras's own without the time it was saved at, and with memory addresses (`shared_object_id`) as
    plain numbers.
    """
    numbers: dict[int, int] = {}

    def reproducible(entry: dict) -> dict:
        entry.pop("date_saved", None)
        if "shared_object_id" in entry:
            entry["shared_object_id"] = numbers.setdefault(entry["shared_object_id"], len(numbers))
        return entry

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        keras.saving.save_model(network, path)
        with zipfile.ZipFile(path) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, member in contents.items():
            if name.endswith(".json"):
                member = json.dumps(json.loads(member, object_hook=reproducible)).encode()
            archive.writestr(zipfile.ZipInfo(name), member)
    return content.getvalue()
