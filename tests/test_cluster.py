"""The search on real Dask clusters: the result does not depend on the workers."""

import json
import re
import signal
import socket
import ssl
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import dask
import numpy as np
import pandas as pd
import psutil
import pytest
from searches import start, wait_for_store

import stages.tune
from stages.base.console import UserError
from stages.base.params import load
from stages.comparison.replicates import final_runner
from stages.compute import cluster
from stages.compute.cluster import connect
from stages.compute.store import Store


@pytest.fixture
def no_cluster(monkeypatch):
    """Dask cannot start a cluster; its error has two lines and begins with an object."""

    def start(*_, **__):
        raise OSError("<Nanny: tls://127.0.0.1:1>: no\nloopback")

    monkeypatch.setattr(cluster, "LocalCluster", start)
    monkeypatch.setattr(cluster.forkserver, "ensure_running", lambda: None)


@pytest.mark.parametrize(("workers", "files"), [(2, 96), (None, 128)])
@pytest.mark.parametrize("fewer", [1, 0])
def test_the_limit_of_open_files_is_raised_for_the_workers_or_one_line_names_it(
    no_cluster, monkeypatch, workers, files, fewer
):
    def setrlimit(_, limits):
        if limits[0] > limits[1]:
            raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(cluster, "CPU_COUNT", 4)
    monkeypatch.setattr(cluster.resource, "getrlimit", lambda _: (50, files - fewer))
    monkeypatch.setattr(cluster.resource, "setrlimit", setrlimit)
    said = rf"50 open files at most\); `ulimit -n {files}`" if fewer else r"no loopback\)"
    with pytest.raises(UserError, match=rf"^this machine cannot start workers \({said}$"), connect(workers):
        pass


def test_a_folder_that_workers_cannot_write_to_is_named_at_once(monkeypatch, tmp_path):
    (tmp_path / "data").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^this machine cannot start workers \(.+/data/dask'\)$"), connect(1):
        pass


@pytest.mark.parametrize(("length", "short"), [(75, False), (76, True)])
def test_a_long_name_of_the_temporary_folder_is_not_used(no_cluster, monkeypatch, length, short):
    monkeypatch.setattr(tempfile, "tempdir", "/" + "x" * (length - 1))
    with pytest.raises(UserError), connect(1):
        pass
    assert (tempfile.tempdir == "/tmp") == short  # noqa: S108


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("<Nanny>: ImportError: no AVX", ": ImportError: no AVX"),
        ("<Nanny>: it died", ": they ended at once, perhaps out of memory"),
    ],
)
def test_the_reason_is_that_of_a_worker_that_could_not_start(said, reason):
    def start():
        raise RuntimeError(said)

    nannies = {
        number: SimpleNamespace(status=SimpleNamespace(name=name), start=start)
        for number, name in enumerate(["running", "failed"])
    }
    client = SimpleNamespace(cluster=SimpleNamespace(workers=nannies), sync=lambda function: function())
    assert cluster.failure(client) == f"their processes do not start{reason}"
    del nannies[1]
    assert cluster.failure(client) is None
    assert cluster.failure(SimpleNamespace(cluster=None)) is None


@pytest.fixture
def its_code(project):
    """A function that adds a line to the end of `build` in `project`'s model.py."""
    model = project.folder / "stages/training/model.py"

    def add(line: str) -> None:
        arguments = "(shapes, outputs, hyperparameters)"
        before = f"_build_{model.read_text().count('def build')}"  # `add` may be called again
        lines = [
            f"{before} = build",
            f"def build{arguments}:",
            f"    network = {before}{arguments}",
            f"    {line}",
        ]
        model.write_text("\n".join([model.read_text(), *lines, "    return network", ""]))

    return add


def test_workers_of_this_machine_have_no_memory_limit_and_refuse_other_users(tmp_path, monkeypatch):
    """All users of the machine can reach their ports."""
    monkeypatch.chdir(tmp_path)
    with connect(2) as client:
        client.wait_for_workers(2, timeout=60)
        workers = client.scheduler_info()["workers"]
        assert [worker["memory_limit"] for worker in workers.values()] == [0, 0]
        for address in (client.scheduler.address, *workers):
            refuses_anyone(address)


def refuses_anyone(address: str) -> None:
    """Assert that a connection without a certificate is refused."""
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    there = address.removeprefix("tls://").rsplit(":", 1)
    with (
        socket.create_connection(there, 5) as connection,
        pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"),
    ):
        anyone.wrap_socket(connection).recv(1)


def test_a_large_checkpoint_in_a_task_makes_no_warning(client):
    """By default, Dask warns about tasks of more than 10 MB."""
    with warnings.catch_warnings(action="error"):
        assert client.submit(len, np.zeros(2**22)).result(60) == 2**22


@pytest.fixture
def another_keras(tmp_path) -> dict[str, str]:
    """An environment in which Keras appears to have version 9.9."""
    about = tmp_path / "packages/keras-9.9.dist-info/METADATA"
    about.parent.mkdir(parents=True)
    about.write_text("Metadata-Version: 2.1\nName: keras\nVersion: 9.9\n")
    return {"PYTHONPATH": str(tmp_path / "packages")}


@pytest.fixture
def another_python(tmp_path) -> dict[str, str]:
    """An environment in which Dask reports Python 3.9."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages/sitecustomize.py").write_text(
        "import sys, types, distributed.versions\ndistributed.versions.sys = "
        "types.SimpleNamespace(**{**vars(sys), 'version_info': (3, 9, 0, 'final', 0)})\n"
    )
    return {"PYTHONPATH": str(tmp_path / "packages")}


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ("another_keras", f"keras 9.9 where the client has {version('keras')}"),
        ("another_python", "Python 3.9 where the client has 3.{1}".format(*sys.version_info)),
    ],
)
def test_a_worker_with_other_versions_is_one_line(project, by_hand, request, monkeypatch, environment, said):
    before = project.outputs()
    project.empty_store()
    address, _, start_worker = by_hand
    start_worker(**request.getfixturevalue(environment))
    monkeypatch.chdir(project.folder)
    line = rf"^there are no workers \(tcp://\S+: {said}\); start one with `dask worker .+`$"
    with dask.config.set({"scheduler-address": address}), connect(None) as client:
        client.wait_for_workers(1, timeout=60)
    with dask.config.set({"scheduler-address": address}), pytest.raises(UserError, match=line):
        stages.tune.main()
    assert project.outputs() == before


@pytest.mark.weekly
def test_late_workers_with_other_versions_are_sent_away_and_the_search_goes_on(
    project, by_hand, another_keras
):
    expected = project.outputs()
    project.empty_store()
    address, _, start_worker = by_hand
    start_worker()
    search = start(project, DASK_SCHEDULER_ADDRESS=address)
    wait_for_store(project, 1, search)
    late = [start_worker("--death-timeout", "20", **another_keras) for _ in range(3)]
    output = search.communicate(timeout=200)[0]
    assert search.returncode == 0, output
    assert project.outputs() == expected
    assert [worker.wait(30) for worker in late] == [0, 0, 0]
    lines = re.findall(r"^worker tcp://\S+ was sent away: keras 9.9 where the client has \S+$", output, re.M)
    assert len(lines) == 1


@pytest.mark.parametrize("error", ["ImportError", "OSError"])
def test_a_worker_that_cannot_train_is_no_failed_trial(here, project, its_code, error):
    """The task is retried, here in vain; then the stage ends with one line, and existing outputs are kept."""
    before = project.outputs()
    its_code(f"raise {error}('no')")
    line = rf"^worker tcp://\S+: {error}: no, after 3 tries; fix or stop the worker; finished epochs"
    with pytest.raises(UserError, match=line + " are kept, .+$"):
        here("tune")
    assert project.outputs() == before


def test_a_network_that_finds_no_memory_is_a_failed_trial(here, its_code):
    """Otherwise, a search with a network that is too large would never end."""
    its_code("raise MemoryError('no')")
    line = r"^all trials \(\d\) failed; the first: out of memory in 3 tries \(MemoryError: no\)$"
    with pytest.raises(UserError, match=line):
        here("tune")


def seconds_of_epochs(project) -> list[float]:
    """The times of the epochs of the only stored training, which show whether an epoch was run again."""
    store = Store(project.folder / "data/trials")
    (key,) = store.keys()
    checkpoint = store.load(key, arrays=False)
    return checkpoint.seconds if checkpoint else []


@pytest.fixture
def long_training(project):
    """The project with a single training of 400 epochs to search, with a checkpoint ten times a second.

    The baseline's trial and the only other trial share this training.
    """
    project.empty_store()
    project.update_params(
        {
            "tune": {
                "space": {"units": {"type": "int", "min": 512, "max": 512}},
                "strategy": "random",
                "random": {"max_trials": 1},
                "max_epochs": 400,
                "early_stopping": None,
            }
        }
    )
    runner = project.folder / "stages/compute/runner.py"
    content = runner.read_text()
    assert "SECONDS = 10 " in content
    runner.write_text(content.replace("SECONDS = 10 ", "SECONDS = 0.1 "))
    return project


@pytest.mark.weekly
def test_a_dead_workers_training_goes_on_from_its_last_checkpoint(long_training, by_hand):
    address, _, start_worker = by_hand
    workers = [start_worker() for _ in range(2)]
    search = start(long_training, DASK_SCHEDULER_ADDRESS=address)
    wait_for_store(long_training, 1, search)
    while len(before := seconds_of_epochs(long_training)) < 40:
        time.sleep(0.02)
    max(workers, key=lambda worker: sum(psutil.Process(worker.pid).cpu_times()[:2])).kill()
    output = search.communicate(timeout=120)[0]
    assert search.returncode == 0, output
    after = seconds_of_epochs(long_training)
    assert len(after) == 400
    assert after[: len(before)] == before


def test_a_search_that_is_interrupted_frees_its_workers(long_training, by_hand):
    long_training.update_params({"tune": {"max_epochs": 10_000}})
    address, _, start_worker = by_hand
    worker = psutil.Process(start_worker().pid)
    search = start(long_training, DASK_SCHEDULER_ADDRESS=address)
    wait_for_store(long_training, 1, search)
    search.send_signal(signal.SIGINT)
    output = search.communicate(timeout=30)[0]
    assert search.returncode == 130, output
    deadline = time.monotonic() + 20
    while worker.cpu_percent(0.5) > 50:
        assert time.monotonic() < deadline


def test_a_search_removes_what_a_killed_one_left_on_workers_and_leaves_nothing_itself(
    long_training, by_hand, monkeypatch
):
    long_training.update_params({"tune": {"max_epochs": 10_000}})
    address, _, start_worker = by_hand
    start_worker()
    monkeypatch.chdir(long_training.folder)
    with dask.config.set({"scheduler-address": address}), connect(None) as client:

        def searches() -> list[str]:
            (plugins,) = client.run(lambda dask_worker: list(dask_worker.plugins)).values()
            return [name for name in plugins if name.startswith("stages-")]

        client.wait_for_workers(1, timeout=60)
        search = start(long_training, DASK_SCHEDULER_ADDRESS=address)
        while not (left := searches()) and search.poll() is None:
            time.sleep(0.1)
        search.kill()
        search.communicate()
        while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.clients)) > 2:
            time.sleep(0.1)
        with final_runner(client, load(Path("params.yaml"))):
            assert len(searches()) == 1
            assert not set(left) & set(searches())
        assert searches() == []


def test_a_scheduler_that_dies_is_one_line_and_keeps_what_is_finished(here, project, by_hand):
    project.empty_store()
    before = project.outputs()
    address, scheduler, start_worker = by_hand
    start_worker()
    search = start(project, DASK_SCHEDULER_ADDRESS=address)
    wait_for_store(project, 2, search)
    scheduler.kill()
    output = search.communicate(timeout=120)[0]
    assert search.returncode == 1, output
    assert output.splitlines()[-1].startswith("error: the cluster is gone ("), output
    assert "Traceback" not in output
    after, trials = project.outputs(), "metrics/plots/trials.csv"
    assert {**after, trials: before[trials]} == before
    assert ", 0 of them" not in here("tune")


def test_a_mistake_is_reported_before_workers_are_waited_for(project, by_hand, monkeypatch):
    address, _, _ = by_hand
    project.update_params({"tune": {"objective": "val_f1"}})
    monkeypatch.chdir(project.folder)
    began = time.monotonic()
    with (
        dask.config.set({"scheduler-address": address}),
        pytest.raises(UserError, match=r"tune\.objective in params.yaml is val_f1"),
    ):
        stages.tune.main()
    assert time.monotonic() - began < 20  # a third of the time that it would wait


def test_a_trial_that_fails_is_recorded_and_the_others_go_on(here, project, its_code):
    """The first trains, the loss of the second overflows; the third, which is the baseline too, raises."""
    overflow = "network.compile(keras.optimizers.SGD(1e30), loss=network.loss)"
    its_code(f"if hyperparameters.units == 32: {overflow}")
    its_code("if hyperparameters.units == 512: raise ValueError('too\\nwide')")
    project.update_params({"tune": {"strategy": "grid", "max_epochs": 2}})
    values = [16, 32, 512]
    assert "ValueError: too wide" in here(
        "tune", {"tune": {"space": {"units": {"type": "choice", "values": values}}}}
    )
    trials = pd.read_csv(project.folder / "metrics/plots/trials.csv")
    assert trials["failure"].notna().tolist() == [True, False, True, True]
    assert trials["val_accuracy"].isna().tolist() == [True, False, True, True]
    assert " is nan after epoch " in trials["failure"][2]
    assert trials["failure"][[0, 3]].tolist() == ["ValueError: too wide"] * 2
    metrics = json.loads((project.folder / "metrics/tune.json").read_text())
    assert metrics["hyperparameters"]["units"] == 16
    assert metrics["failed_trials"] == 2
    line = r"^baseline: the network cannot be trained with units 512, .+: ValueError: too wide$"
    with pytest.raises(UserError, match=line):
        here("baseline")
    with pytest.raises(UserError, match=r"^all trials \(2\) failed; the first: ValueError: too wide$"):
        here("tune", {"tune": {"space": {"units": {"type": "choice", "values": [512]}}}})


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense", "silent"])
def test_a_scheduler_that_cannot_be_reached_is_one_line(project, monkeypatch, address):
    project.empty_store()
    before = project.outputs()
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr("stages.compute.cluster.CONNECT_TIMEOUT", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections and never answers
        address = address.replace("silent", f"tcp://127.0.0.1:{silent.getsockname()[1]}")
        line = f"^DASK_SCHEDULER_ADDRESS is {address}, but no scheduler answers there within 2 s.*$"
        with dask.config.set({"scheduler-address": address}), pytest.raises(UserError, match=line):
            stages.tune.main()
    assert project.outputs() == before
