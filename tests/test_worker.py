"""How a worker runs a job, in the tests' own process."""

import json
import math

import numpy as np
import pytest
import trainings
from trainings import HYPERPARAMETERS

from stages.base import splits
from stages.base.console import UserError
from stages.base.splits import Split
from stages.compute import worker
from stages.compute.worker import Session
from stages.training import evaluation, model
from stages.training.backend import keras


@pytest.fixture
def data(tmp_path) -> Split:
    """The training part, as `prepare` writes it."""
    digits = trainings.digits()[0]
    splits.save(tmp_path / "training", (digits, np.arange(200)))
    return splits.load(tmp_path / "training")


@pytest.fixture
def session(data, tmp_path):
    """A function that makes a session."""

    def make(*, digest: str | None = None) -> Session:
        return Session(
            {"training": str(tmp_path / "training")},
            {"training": digest or splits.digest(data)},
            {"rows": (np.arange(150), np.arange(150, 200))},
            early_stopping=None,
        )

    return make


def job(**changes) -> dict:
    content = {"key": "key", "hyperparameters": HYPERPARAMETERS, "seed": 1, "subset": "rows", "epochs": 2}
    return {**content, "all_epochs": 2, "checkpoint": None, "seconds": math.inf, **changes}


def test_rows_that_changed_after_the_client_read_them_are_not_trained_on(data, session, tmp_path):
    """The training would be stored under the key of the other rows, and reused."""
    digest = splits.digest(data)
    labels = np.array(data.labels)
    labels[[0, 1]] = labels[[1, 0]]
    splits.save(tmp_path / "training", (Split(np.array(data.inputs), labels), np.arange(200)))
    with pytest.raises(UserError, match=r"/training has changed since this stage started; run it again$"):
        session(digest=digest)


def test_rows_that_change_in_place_during_a_training_are_an_error(session, tmp_path):
    """The worker maps the file into memory."""
    began = session()
    assert "failure" not in worker.train(began, job())
    labels = np.load(tmp_path / "training/labels.npy", mmap_mode="r+")
    labels[:] = labels[::-1].copy()
    labels.flush()
    with pytest.raises(UserError, match=r"^\S+ has changed since this stage started; run it again$"):
        worker.train(began, job())


def test_a_training_is_the_same_in_one_go_and_in_parts_on_several_workers(session):
    whole = worker.train(session(), job(epochs=3))
    part = worker.train(session(), job(epochs=1))
    rest = worker.train(session(), job(epochs=3, checkpoint=part))
    assert len(whole["history"]["val_loss"]) == 3
    for what in ("history", "weights", "optimizer"):
        np.testing.assert_equal(rest[what], whole[what])
    assert worker.train(session(), job(epochs=3, checkpoint=whole)) == whole


def test_after_its_seconds_a_training_ends_with_the_epoch(session):
    """The next task continues from there, with the same result."""
    at_work, reached, parts = session(), None, 0
    while not reached or reached["epoch"] < 3:
        reached = worker.train(at_work, job(epochs=3, checkpoint=reached, seconds=0))
        parts += 1
    assert parts == 3
    assert reached["history"] == worker.train(session(), job(epochs=3))["history"]


def wide(units: int) -> dict:
    """A job for a network with this number of units."""
    return job(epochs=1, hyperparameters={**HYPERPARAMETERS, "units": units})


def kept(at_work: Session) -> list[int]:
    """The units of the networks that the session keeps."""
    return [json.loads(name)[0]["units"] for name in at_work.trainers]


def test_kept_networks_are_bounded_in_bytes_and_are_the_most_recently_used(session, monkeypatch):
    at_work = session()
    for units in (8, 9, 10, 11):
        worker.train(at_work, wide(units))
    assert kept(at_work) == [8, 9, 10, 11]
    trainer = list(at_work.trainers.values())[-1]
    size, parameters = worker._size(trainer), trainer.network.count_params()
    # Weights and Adam's two slots
    assert size == pytest.approx(worker.TRACE_BYTES + 3 * 4 * parameters, rel=1e-3)
    monkeypatch.setattr(worker, "KEPT_BYTES", 2.5 * size)
    worker.train(at_work, wide(12))
    assert kept(at_work) == [11, 12]
    monkeypatch.setattr(worker, "KEPT_BYTES", 0)
    worker.train(at_work, wide(13))
    assert kept(at_work) == [13]


@pytest.fixture
def traced(monkeypatch) -> list[int]:
    """A list with an item for each `Trainer` created."""
    made = []
    original = worker.Trainer

    def counted(*arguments, **options):
        made.append(1)
        return original(*arguments, **options)

    monkeypatch.setattr(worker, "Trainer", counted)
    return made


def assert_same(reached: dict, expected: dict) -> None:
    for what in ("history", "weights", "optimizer"):
        np.testing.assert_equal(reached[what], expected[what])


def test_a_promoted_training_is_not_traced_again_and_has_the_same_result(session, traced):
    at_work = session()
    start = worker.train(at_work, job(epochs=1))
    promoted = worker.train(at_work, job(epochs=3, checkpoint=start))
    assert len(traced) == 1
    assert_same(promoted, worker.train(session(), job(epochs=3)))


def test_another_seed_is_not_traced_again_and_has_the_same_result(session, traced):
    """Nor is a training that another worker began."""
    alone = [worker.train(session(), job(seed=seed)) for seed in (1, 2, 3)]
    begun = worker.train(session(), job(seed=3, epochs=1))
    traced.clear()
    at_work = session()
    for seed in (1, 2, 1):
        assert_same(worker.train(at_work, job(seed=seed)), alone[seed - 1])
    assert_same(worker.train(at_work, job(seed=3, checkpoint=begun)), alone[2])
    assert len(traced) == 1


def test_a_network_with_random_constants_is_traced_for_each_seed(session, traced, monkeypatch):
    """They are not variables, so a network of another seed would keep its own when it is restored."""

    def build(shapes, outputs, hyperparameters):
        made = trainings.build(shapes, outputs, hyperparameters)
        constants = np.random.normal(size=shapes).astype("float32")
        inputs = keras.Input(shapes)
        made = keras.Model(inputs, made(inputs * constants))
        made.compile("adam", loss="sparse_categorical_crossentropy")
        return made

    monkeypatch.setattr(model, "build", build)
    alone = [worker.train(session(), job(seed=seed)) for seed in (1, 2)]
    traced.clear()
    at_work = session()
    for seed in (1, 2):
        assert_same(worker.train(at_work, job(seed=seed)), alone[seed - 1])
    assert len(traced) == 2


@pytest.mark.parametrize("what", ["layer", "generator"])
def test_a_network_that_shares_state_with_an_earlier_one_is_refused(session, monkeypatch, what):
    """A layer created outside `build` would keep the weights of the last training."""
    layer, generator = keras.layers.Dense(10, "softmax"), np.random.default_rng(0)

    def build(shapes, outputs, hyperparameters):
        constants = generator.normal(size=shapes).astype("float32") if what == "generator" else 1.0
        inputs = keras.Input(shapes)
        hidden = keras.layers.Dense(hyperparameters.units)(keras.layers.Flatten()(inputs * constants))
        last = layer if what == "layer" else keras.layers.Dense(10, "softmax")
        made = keras.Model(inputs, last(hidden))
        made.compile("adam", loss="sparse_categorical_crossentropy")
        return made

    monkeypatch.setattr(model, "build", build)
    asked = job(hyperparameters={"units": 8, "batch_size": 50})
    with pytest.raises(
        UserError, match=r"^stages/training/model.py: build does not return a new, equal netw"
    ):
        worker.train(session(), asked)


@pytest.mark.parametrize("error", [ValueError("too\nwide"), KeyError("units")])
def test_a_network_that_cannot_be_built_is_a_failure_in_one_line(session, monkeypatch, error):
    def build(*_):
        raise error

    monkeypatch.setattr(model, "build", build)
    failure = worker.train(session(), job())["failure"]
    assert failure.startswith(f"{type(error).__name__}: ")
    assert "\n" not in failure


@pytest.mark.parametrize("error", [MemoryError, OSError, ImportError, UserError])
def test_an_error_that_is_not_the_networks_fault_is_no_failure(session, monkeypatch, error):
    def build(*_):
        raise error("no")

    monkeypatch.setattr(model, "build", build)
    with pytest.raises(error, match="no"):
        worker.train(session(), job())


def test_each_training_has_its_own_batch_size(session):
    """Adam's first variable counts the steps, here of two epochs of 150 examples."""
    for size, steps in ((50, 6), (64, 6), (149, 4), (1000, 2)):
        hyperparameters = {**HYPERPARAMETERS, "batch_size": size}
        reached = worker.train(session(), job(key=str(size), hyperparameters=hyperparameters))
        assert int(reached["optimizer"][0]) == steps


def scheduled(shapes, outputs, hyperparameters, *, steps_per_epoch, epochs):
    """A network whose learning rate falls to 0 at the end of all epochs."""
    made = trainings.build(shapes, outputs, hyperparameters)
    schedule = keras.optimizers.schedules.PolynomialDecay(0.1, steps_per_epoch * epochs, 0.0)
    made.compile(keras.optimizers.SGD(schedule), loss=made.loss)
    return made


def test_a_schedule_knows_the_steps_and_epochs_of_the_whole_training(session, monkeypatch):
    """It has 4 epochs of 5 batches, the last of them smaller; a fifth epoch changes no weights."""
    asked = []

    def build(shapes, outputs, hyperparameters, *, steps_per_epoch, epochs):
        asked.append((steps_per_epoch, epochs))
        hyperparameters.learning_rate  # noqa: B018 - to ask for it
        return scheduled(shapes, outputs, hyperparameters, steps_per_epoch=steps_per_epoch, epochs=epochs)

    monkeypatch.setattr(model, "build", build)
    at_work = session()
    assert at_work.about["takes_epochs"]
    reached = [None]
    for epochs in (2, 4, 5):
        reached.append(worker.train(at_work, job(epochs=epochs, all_epochs=4, checkpoint=reached[-1])))
    assert set(asked) == {(5, 4)}
    weights = [state["weights"] for state in reached[1:]]
    assert not np.array_equal(weights[0][0], weights[1][0])
    np.testing.assert_equal(weights[1], weights[2])


def test_a_network_without_a_schedule_does_not_depend_on_the_epochs(session):
    assert not session().about["takes_epochs"]


def test_a_network_that_does_not_fit_the_data_is_a_user_error(session, monkeypatch):
    """It would fail in every trial."""

    def build(shapes, outputs, hyperparameters):
        made = trainings.build(shapes, 5, hyperparameters)
        made.compile("sgd", loss=lambda labels, outputs: keras.ops.mean(outputs))
        return made

    monkeypatch.setattr(model, "build", build)
    with pytest.raises(
        UserError, match=r"^stages/training/model.py: the loss of outputs of shape \(150, 5\) "
    ):
        worker.train(session(), job())
    monkeypatch.setattr(model, "build", trainings.build)
    monkeypatch.setattr(evaluation, "score", lambda labels, outputs: outputs)
    with pytest.raises(
        UserError, match=r"^stages/training/score.py: score returns float32 of shape \(150, 10\)"
    ):
        worker.train(session(), job())


def test_other_hyperparameters_than_the_network_reads_are_a_user_error(session):
    for hyperparameters in ({**HYPERPARAMETERS, "depth": 2}, {"batch_size": 32}):
        with pytest.raises(
            UserError, match=r"^stages/training/model.py (never reads|asks for) the hyperparam"
        ):
            worker.train(session(), job(hyperparameters=hyperparameters))
