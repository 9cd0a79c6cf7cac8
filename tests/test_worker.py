"""What a worker does with a job, in the tests' own process."""

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

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture
def data(tmp_path) -> Split:
    """The training part, as `prepare` leaves it, and its folder."""
    digits = trainings.digits()[0]
    splits.save(tmp_path / "training", (digits, np.arange(200)))
    return splits.load(tmp_path / "training")


@pytest.fixture
def session(data, tmp_path):
    """A function that makes a session, with a store if `store`."""

    def make(*, store: bool = True, digest: str | None = None) -> Session:
        return Session(
            {"training": str(tmp_path / "training")},
            {"training": digest or splits.digest(data)},
            {"rows": (np.arange(150), np.arange(150, 200))},
            early_stopping=None,
            store=str(tmp_path / "store") if store else None,
        )

    return make


def job(**changes) -> dict:
    content = {"key": "key", "hyperparameters": HYPERPARAMETERS, "seed": 1, "subset": "rows", "epochs": 2}
    return {**content, "all_epochs": 2, "exact": False, "keep": 0, "model": False, **changes}


def nothing(epoch: int) -> None:
    """Take a report, and go on."""


def test_rows_that_changed_after_the_client_read_them_are_not_trained_on(data, session, tmp_path):
    """They would be stored under the name of the others, and found under it for ever."""
    digest = splits.digest(data)
    labels = np.array(data.labels)
    labels[[0, 1]] = labels[[1, 0]]
    splits.save(tmp_path / "training", (Split(np.array(data.inputs), labels), np.arange(200)))
    with pytest.raises(UserError, match=r"/training has changed since this stage started; run it again$"):
        session(digest=digest)


def test_a_training_is_the_same_with_a_store_and_without_one_and_in_parts(session):
    stored, sent = session(), session(store=False)
    whole = worker.train(stored, job(epochs=3), None, nothing)
    part = worker.train(sent, job(epochs=1), None, nothing)
    assert part["weights"]
    rest = worker.train(session(store=False), job(epochs=3), part, nothing)
    assert rest["history"] == whole["history"]
    assert stored.store.load("key").epoch == 3
    np.testing.assert_equal(stored.store.load("key").weights, rest["weights"])
    assert (whole["weights"], whole["optimizer"]) == ([], [])
    assert len(whole["history"]["val_loss"]) == 3
    assert worker.train(sent, job(epochs=1), None, nothing)["history"] == part["history"]


def test_a_stored_training_may_be_further_unless_the_very_epoch_is_wanted(session):
    stored = session()
    for epochs in (1, 3):
        worker.train(stored, job(epochs=epochs, keep=1), None, nothing)
    assert stored.store.load("key", 2).epoch == 1
    assert worker.train(stored, job(epochs=2), None, nothing)["epoch"] == 3
    assert worker.train(stored, job(epochs=2, exact=True), None, nothing)["epoch"] == 2


def test_checkpoints_are_stored_on_the_way_whenever_the_one_before_is(session, monkeypatch):
    monkeypatch.setattr(worker, "REPORT_EVERY", 0)
    stored, saved = session(), []
    monkeypatch.setattr(stored.store, "save", lambda _, reached, keep: saved.append(reached.epoch))
    worker.train(stored, job(epochs=50), None, nothing)
    assert (saved[0], saved[-1]) == (1, 50)
    assert len(saved) > 2


def test_networks_are_kept_by_their_bytes_and_the_last_used_stay(session, monkeypatch):
    at_work = session(store=False)
    for number in range(4):
        worker.train(at_work, job(key=str(number), epochs=1), None, nothing)
    assert list(at_work._trainers) == ["0", "1", "2", "3"]
    size = worker._size(at_work._trainers["3"])
    parameters = at_work._trainers["3"].network.count_params()
    assert size == pytest.approx(
        worker.TRACE_BYTES + 3 * 4 * parameters, rel=1e-3
    )  # weights and Adam's two slots
    monkeypatch.setattr(worker, "KEPT_BYTES", 2.5 * size)
    worker.train(at_work, job(key="4", epochs=1), None, nothing)
    assert list(at_work._trainers) == ["3", "4"]
    monkeypatch.setattr(worker, "KEPT_BYTES", 0)
    worker.train(at_work, job(key="5", epochs=1), None, nothing)
    assert list(at_work._trainers) == ["5"]


def test_a_promoted_training_is_not_traced_again_and_comes_to_the_same(session, monkeypatch):
    at_work, traced = session(), []
    original = worker.Trainer

    def counted(*arguments, **options):
        traced.append(1)
        return original(*arguments, **options)

    monkeypatch.setattr(worker, "Trainer", counted)
    worker.train(at_work, job(epochs=1), None, nothing)
    promoted = worker.train(at_work, job(epochs=3), None, nothing)
    assert len(traced) == 1
    assert promoted["history"] == worker.train(session(store=False), job(epochs=3), None, nothing)["history"]


@pytest.mark.parametrize("error", [ValueError("too\nwide"), KeyError("units")])
def test_a_network_that_cannot_be_built_is_a_failure_in_one_line(session, monkeypatch, error):
    def build(*_):
        raise error

    monkeypatch.setattr(model, "build", build)
    failure = worker.train(session(), job(), None, nothing)["failure"]
    assert failure.startswith(f"{type(error).__name__}: ")
    assert "\n" not in failure


@pytest.mark.parametrize("error", [MemoryError, OSError, ImportError, UserError])
def test_what_no_network_is_to_blame_for_is_no_failure(session, monkeypatch, error):
    def build(*_):
        raise error("no")

    monkeypatch.setattr(model, "build", build)
    with pytest.raises(error, match="no"):
        worker.train(session(), job(), None, nothing)


def test_a_search_that_has_ended_ends_its_trainings(session):
    def ended(epoch: int) -> None:
        raise InterruptedError

    at_work = session()
    with pytest.raises(InterruptedError):
        worker.train(at_work, job(epochs=1000), None, ended)
    assert at_work._trainers == {}


def test_the_batch_size_is_the_trainings_own(session):
    """By Adam's first variable, its iterations: two epochs of 150 examples."""
    for size, steps in ((50, 6), (64, 6), (149, 4), (1000, 2)):
        hyperparameters = {**HYPERPARAMETERS, "batch_size": size}
        reached = worker.train(
            session(store=False), job(key=str(size), hyperparameters=hyperparameters), None, nothing
        )
        assert int(reached["optimizer"][0]) == steps


def scheduled(shapes, outputs, hyperparameters, *, steps_per_epoch, epochs):
    """A network whose learning rate ends at 0, after all epochs."""
    made = trainings.build(shapes, outputs, hyperparameters)
    schedule = keras.optimizers.schedules.PolynomialDecay(0.1, steps_per_epoch * epochs, 0.0)
    made.compile(keras.optimizers.SGD(schedule), loss=made.loss)
    return made


def test_a_schedule_knows_the_steps_and_epochs_of_the_whole_training(session, monkeypatch):
    """Of 5 batches, the last smaller, and 4 epochs: after them the network stays as it is."""
    asked = []

    def build(shapes, outputs, hyperparameters, *, steps_per_epoch, epochs):
        asked.append((steps_per_epoch, epochs))
        hyperparameters.learning_rate  # noqa: B018 - to ask for it
        return scheduled(shapes, outputs, hyperparameters, steps_per_epoch=steps_per_epoch, epochs=epochs)

    monkeypatch.setattr(model, "build", build)
    at_work = session(store=False)
    assert at_work.takes_epochs
    reached = [worker.train(at_work, job(epochs=epochs, all_epochs=4), None, nothing) for epochs in (2, 4, 5)]
    assert set(asked) == {(5, 4)}
    weights = [state["weights"] for state in reached]
    assert not np.array_equal(weights[0][0], weights[1][0])
    np.testing.assert_equal(weights[1], weights[2])


def test_a_network_without_a_schedule_does_not_depend_on_the_epochs(session):
    assert not session().takes_epochs


def test_a_network_that_does_not_fit_the_data_is_the_users_to_mend(session, monkeypatch):
    """It would fail in every trial."""

    def build(shapes, outputs, hyperparameters):
        made = trainings.build(shapes, 5, hyperparameters)
        made.compile("sgd", loss=lambda labels, outputs: keras.ops.mean(outputs))
        return made

    monkeypatch.setattr(model, "build", build)
    with pytest.raises(
        UserError, match=r"^stages/training/model.py: the loss of outputs of shape \(150, 5\) "
    ):
        worker.train(session(), job(), None, nothing)
    monkeypatch.setattr(model, "build", trainings.build)
    monkeypatch.setattr(evaluation, "score", lambda labels, outputs: outputs)
    with pytest.raises(
        UserError, match=r"^stages/training/score.py: score returns float32 of shape \(150, 10\)"
    ):
        worker.train(session(), job(), None, nothing)


def test_other_hyperparameters_than_the_network_reads_are_the_users_to_mend(session):
    for hyperparameters in ({**HYPERPARAMETERS, "depth": 2}, {"batch_size": 32}):
        with pytest.raises(
            UserError, match=r"^stages/training/model.py (never reads|asks for) the hyperparam"
        ):
            worker.train(session(), job(hyperparameters=hyperparameters), None, nothing)
