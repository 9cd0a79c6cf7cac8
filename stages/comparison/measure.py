"""On a worker: tests a trained network, and measures the times of two networks in turns in one process."""

import io
import json
import tempfile
import timeit
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from stages.base.console import one_line
from stages.compute.worker import Session, attempt, train
from stages.training import evaluation
from stages.training.backend import keras, tf
from stages.training.checkpoint import Checkpoint
from stages.training.network import predictor, restore_trained
from stages.training.score import NAME
from stages.training.trainer import Trainer

EPOCH_PART = 40  # 1 / 40 of an epoch is timed, in many rounds
STEPS = 20  # at least, since a smaller last batch may take as long as a full one
BATCH = 1000  # examples whose predictions are timed
ROUNDS = 15


def test(session: Session, job: dict) -> dict:
    """Return what `train` returns; at the end of a training also `test`, the results on the test examples.

    These are `loss`, `outputs`, (examples, ...) float32, `scores`, see `evaluation.values`, and, for a job
    with "model", what `keras_file` returns, as `model` and `unusable`.
    """
    result = train(session, job)
    if "failure" in result or not (reached := Checkpoint(**result)).done(job["epochs"]):
        return result
    if reached.failure:
        return {"failure": reached.failure}
    tested = attempt(session, partial(_test, session, job, reached))
    return tested if "failure" in tested else result | {"test": tested}


def _test(session: Session, job: dict, reached: Checkpoint) -> dict:
    trainer, _ = session.trainer(job, reached)
    restore_trained(trainer.network, reached)
    loss, _, outputs = trainer.evaluate(session.tensors["test"])
    part = session.data["test"]
    scores = evaluation.values(part.labels, outputs, part.groups)
    for name, figures in (("test_loss", loss), (f"test_{NAME}", scores)):
        if not np.isfinite(figures).all():
            return {"failure": f"{name} is not finite after epoch {reached.epoch}"}
    model, unusable = None, None
    if job["model"]:  # newly built, so that the file does not depend on what this worker trained before
        examples = len(trainer.data.rows)
        built = session.build(job["hyperparameters"], job["seed"], examples, job["all_epochs"])
        restore_trained(built, reached)
        model, unusable = keras_file(built)
    return {"loss": loss, "outputs": outputs, "scores": scores, "model": model, "unusable": unusable}


def compare(session: Session, job: dict) -> dict:
    """Return the `parameters` of both networks of `job`, and times of epochs, trainings and predictions."""
    training, test = session.data["training"], session.data["test"]
    batches = {name: network["hyperparameters"]["batch_size"] for name, network in job["networks"].items()}
    size = min(len(training.labels), max(len(training.labels) // EPOCH_PART, STEPS * max(batches.values())))
    part, rows = session.tensors["training"].at(np.arange(size)), np.arange(BATCH) % len(test.labels)
    inputs = tf.nest.map_structure(lambda array: array[rows], test.inputs)
    networks, epochs = {}, {}
    for name, network in job["networks"].items():
        networks[name] = session.build(**network, seed=0, examples=len(training.labels))
        trainer = Trainer(networks[name], part, batch_size=batches[name])
        epochs[name] = partial(trainer.train_epoch, 0, 0, {})
    predictors = {name: partial(predictor(network), inputs) for name, network in networks.items()}
    predictions = {name: partial(timeit.timeit, predict, number=1) for name, predict in predictors.items()}
    epoch = compare_seconds(epochs, len(training.labels) / size)
    lengths = {name: network["epochs"] for name, network in job["networks"].items()}
    factors = {name: lengths.get(name, lengths["baseline"] / lengths["tuned"]) for name in epoch}
    return {
        "parameters": {name: network.count_params() for name, network in networks.items()},
        "seconds_per_epoch": epoch,
        "seconds_per_training": {name: float(f"{epoch[name] * factors[name]:.4g}") for name in epoch},
        f"milliseconds_per_{BATCH}_predictions": compare_seconds(predictions, 1000),
    }


def compare_seconds(timed: Mapping[str, Callable[[], float]], factor: float, rounds: int = ROUNDS) -> dict:
    """Compare the seconds that two functions return, called in turns in each round; a first round warms up.

    Returns:
        Under the functions' names, the medians of their seconds times `factor`; `ratio`, the median of the
        rounds' ratios of the first to the second; `ratio_low` and `ratio_high`, the quartiles of these.
    """
    seconds = [[function() for function in timed.values()] for _ in range(rounds + 1)]
    first, second = np.transpose(seconds[1:]) * factor
    figures = np.median(first), np.median(second), *np.percentile(first / second, [50, 25, 75])
    names = *timed, "ratio", "ratio_low", "ratio_high"
    return {name: float(f"{figure:.4g}") for name, figure in zip(names, figures, strict=True)}


def keras_file(network: keras.Model) -> tuple[bytes, str | None]:
    """Return the content of a reproducible `.keras` file, and why Keras cannot save or load it, or None.

    It is Keras's own file without the time of saving, and with memory addresses (`shared_object_id`) replaced
    by consecutive numbers. It is empty if Keras cannot save the model.
    """
    numbers: dict[int, int] = {}

    def reproducible(entry: dict) -> dict:
        entry.pop("date_saved", None)
        if "shared_object_id" in entry:
            entry["shared_object_id"] = numbers.setdefault(entry["shared_object_id"], len(numbers))
        return entry

    content, unusable = io.BytesIO(), None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        try:
            keras.saving.save_model(network, path)
            with zipfile.ZipFile(path) as saved, zipfile.ZipFile(content, "w") as archive:
                for name in saved.namelist():
                    member = saved.read(name)
                    if name.endswith(".json"):
                        member = json.dumps(json.loads(member, object_hook=reproducible)).encode()
                    archive.writestr(zipfile.ZipInfo(name), member)
            keras.saving.load_model(path)
        except Exception as error:
            cause: BaseException = error
            while cause.__context__:  # the innermost error names what is missing
                cause = cause.__context__
            unusable = one_line(cause)
    return content.getvalue(), unusable
