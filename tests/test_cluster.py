"""The search on a real Dask cluster: the same result whoever runs it and however often it is killed."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import dask
import pandas as pd
import psutil
import pytest
from conftest import ENVIRONMENT, ROOT

from stages.base import params
from stages.base.console import UserError
from stages.compute import runner
from stages.compute.cluster import Cluster
from stages.compute.code import worker_code
from stages.search import tuning


def start(project, before: tuple[str, ...] = (), **environment) -> subprocess.Popen:
    """Start the search in a process group of its own."""
    return subprocess.Popen(
        [*before, "python", "-m", "stages.tune"],
        cwd=project.folder,
        env={**ENVIRONMENT, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )


def processes_of(search: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(search.pid).children(recursive=True)


def busiest(processes: list[psutil.Process]) -> psutil.Process:
    """The worker that has computed most: of the processes that have no children."""
    return max((p for p in processes if not p.children()), key=lambda process: sum(process.cpu_times()[:2]))


def wait_until_gone(processes: list[psutil.Process], timeout=20) -> None:
    _, alive = psutil.wait_procs(processes, timeout)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def wait_for_store(project, entries: int, search: subprocess.Popen) -> None:
    """Wait until the search has stored that many trainings."""
    while len(list((project.folder / "data/trials").rglob("*.checkpoint"))) < entries and search.poll() is None:
        time.sleep(0.02)
    assert search.poll() is None, search.stdout.read()


def tune(project) -> str:
    return project.stage("tune").stdout


@contextmanager
def cluster_by_hand(folder: Path, scheme="tcp", host="127.0.0.1", before: tuple[str, ...] = (), **environment):
    """A scheduler in `folder`, where this repository is not: the address, the scheduler, and a function to start workers.

    Args:
        before: what to put before the command.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, started = f"{scheme}://{host}:{port}", []

    def dask(*arguments: str, before: tuple[str, ...] = (), **more) -> subprocess.Popen:
        place = folder / str(len(started))
        place.mkdir()
        with (place / "log").open("w") as log:
            command, environ = [*before, "dask", *arguments], {**ENVIRONMENT, **environment, **more}
            started.append(subprocess.Popen(command, cwd=place, env=environ, stdout=log, stderr=subprocess.STDOUT))
        return started[-1]

    def worker(*options: str, **more) -> subprocess.Popen:
        return dask("worker", address, "--nthreads", "1", *options, **more)

    scheduler = dask("scheduler", "--host", host, "--port", str(port), "--dashboard-address", "127.0.0.1:0", before=before)
    try:
        yield address, scheduler, worker
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(30)


@pytest.fixture
def by_hand(tmp_path):
    with cluster_by_hand(tmp_path) as started:
        yield started


def test_a_cluster_in_other_folders_writes_the_same_bytes(project, by_hand):
    """One of its workers is killed and one is late."""
    expected = project.outputs()
    project.empty_store()
    address, _, start_worker = by_hand
    worker = psutil.Process(start_worker().pid)
    search = start(project, DASK_SCHEDULER_ADDRESS=address)
    wait_for_store(project, 1, search)
    start_worker()
    busiest(worker.children(recursive=True)).kill()
    output = search.communicate(timeout=120)[0]
    assert search.returncode == 0, output
    assert project.outputs() == expected


def test_two_codes_on_one_cluster_at_once_each_run_their_own(project, by_hand, tmp_path):
    """They differ in the activation of the hidden layer, and take turns on one worker."""
    other = project.copy(tmp_path / "other")
    model = other.folder / "stages/training/model.py"
    model.write_text(model.read_text().replace('activation="relu"', 'activation="tanh"'))
    expected = project.outputs()
    tune(other)
    expected_of_other = other.outputs()
    assert expected_of_other["metrics/tune.json"] != expected["metrics/tune.json"]
    address, _, start_worker = by_hand
    start_worker()
    for each in (project, other):
        each.empty_store()
    searches = [start(each, DASK_SCHEDULER_ADDRESS=address) for each in (project, other)]
    for each, search in zip((project, other), searches, strict=True):
        wait_for_store(each, 1, search)
    for search in searches:
        output = search.communicate(timeout=200)[0]
        assert search.returncode == 0, output
        assert ", 0 of them from data/trials" in output
    assert project.outputs() == expected
    assert other.outputs() == expected_of_other


def test_a_worker_at_dasks_memory_limit_goes_on(project, by_hand):
    """It would be paused at 200 MB, which is less than TensorFlow takes."""
    expected = project.outputs()
    project.empty_store()
    address, _, start_worker = by_hand
    start_worker("--memory-limit", "4GB", DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE="0.05")
    search = start(project, DASK_SCHEDULER_ADDRESS=address)
    output = search.communicate(timeout=200)[0]
    assert search.returncode == 0, output
    assert project.outputs() == expected


def test_workers_of_this_machine_have_no_memory_limit():
    with Cluster(1) as cluster:
        assert [worker["memory_limit"] for worker in cluster.client.scheduler_info()["workers"].values()] == [0]


@pytest.fixture
def another_keras(tmp_path) -> dict[str, str]:
    """An environment in which Keras says that it has version 9.9."""
    about = tmp_path / "packages/keras-9.9.dist-info/METADATA"
    about.parent.mkdir(parents=True)
    about.write_text("Metadata-Version: 2.1\nName: keras\nVersion: 9.9\n")
    return {"PYTHONPATH": str(tmp_path / "packages")}


@pytest.fixture
def another_python(tmp_path) -> dict[str, str]:
    """An environment in which Dask says that Python has version 3.9."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages/sitecustomize.py").write_text(
        "import sys, types, distributed.versions\n"
        "distributed.versions.sys = types.SimpleNamespace(**{**vars(sys), 'version_info': (3, 9, 0, 'final', 0)})\n"
    )
    return {"PYTHONPATH": str(tmp_path / "packages")}


@pytest.mark.parametrize(
    ("environment", "there", "here"),
    [("another_keras", "keras 9.9", version("keras")), ("another_python", "Python 3.9", "3.{1}".format(*sys.version_info))],
)
def test_a_worker_with_other_versions_is_one_line(project, by_hand, request, environment, there, here):
    before = project.outputs()
    project.empty_store()
    address, _, start_worker = by_hand
    start_worker(**request.getfixturevalue(environment))
    search = start(project, DASK_SCHEDULER_ADDRESS=address)
    output = search.communicate(timeout=120)[0]
    assert search.returncode == 1
    line = rf"error: worker tcp://\S+ has {there} where the client has {here}; workers need these versions.+\n"
    assert re.fullmatch(line, output), output
    assert project.outputs() == before


def test_a_late_worker_with_other_versions_trains_nothing(project, by_hand, another_keras):
    expected = project.outputs()
    project.empty_store()
    address, _, start_worker = by_hand
    start_worker()
    search = start(project, DASK_SCHEDULER_ADDRESS=address)
    wait_for_store(project, 1, search)
    start_worker(**another_keras)
    output = search.communicate(timeout=200)[0]
    assert search.returncode == 0, output
    assert project.outputs() == expected


@pytest.mark.parametrize("error", ["MemoryError", "ImportError", "OSError"])
def test_a_worker_that_cannot_train_is_no_failed_trial(project, cluster, monkeypatch, error):
    """It is tried again, here without success, and ends the stage in one line that keeps what was there."""
    project.empty_store()
    before = project.outputs()
    monkeypatch.chdir(project.folder)
    model = "stages/training/model.py"
    code = worker_code()
    raising = code[model].replace(
        b"    model = keras.Sequential(", f"    raise {error}('no')\n    model = keras.Sequential(".encode()
    )
    assert raising != code[model]
    monkeypatch.setattr(runner, "worker_code", lambda: {**code, model: raising})
    line = rf"worker tcp://\S+ cannot train \({error}: no\), after 3 tries; finished epochs are kept, mend or stop .+"
    with pytest.raises(UserError) as raised:
        tuning.tune(params.load(), cluster)
    assert re.fullmatch(line, str(raised.value))
    assert project.outputs() == before


def test_a_scheduler_that_dies_is_one_line_and_keeps_what_is_finished(project, by_hand):
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
    assert project.outputs() == before
    assert ", 0 of them" not in tune(project)


def test_killed_at_many_moments_the_search_goes_on_to_the_same_result(project):
    expected = project.outputs()
    project.empty_store()
    chance = random.Random(0)  # noqa: S311
    stored = 0
    for _ in range(3):
        search = start(project)
        wait_for_store(project, min(stored + 1, 6), search)
        time.sleep(chance.uniform(0, 0.3))
        workers = processes_of(search)
        search.kill()
        search.communicate()
        wait_until_gone(workers)
        stored = len(list((project.folder / "data/trials").rglob("*.checkpoint")))
    output = project.dvc("repro", "--force", "--single-item", "tune")
    assert not output.endswith("0 of them from data/trials\n")
    assert project.outputs() == expected


def test_a_killed_worker_changes_nothing(project):
    """One of three, which is another number than that of the cores."""
    expected = project.outputs()
    project.empty_store()
    project.update_params({"runtime": {"workers": 3}})
    search = start(project)
    wait_for_store(project, 2, search)
    busiest(processes_of(search)).kill()
    output = search.communicate(timeout=120)[0]
    assert search.returncode == 0, output
    assert project.outputs() == expected


def test_ctrl_c_ends_in_seconds_and_keeps_what_is_finished(project):
    project.empty_store()
    before = project.outputs()
    search = start(project)
    wait_for_store(project, 2, search)
    workers = processes_of(search)
    pressed = time.monotonic()
    os.killpg(search.pid, signal.SIGINT)
    output = search.communicate(timeout=30)[0]
    assert time.monotonic() - pressed < 10
    assert search.returncode == 130
    assert output.splitlines()[-1] == "interrupted"
    assert "Traceback" not in output
    wait_until_gone(workers)
    assert project.outputs() == before
    assert ", 0 of them" not in tune(project)


def test_a_trial_that_fails_is_recorded_and_the_others_go_on(project):
    """Trials with more than 100 units raise, and one learning rate lets the loss overflow."""
    model = project.folder / "stages/training/model.py"
    model.write_text(
        model.read_text().replace(
            "    model = keras.Sequential(",
            "    if hyperparameters.units > 100:\n        raise ValueError('too\\nwide')\n    model = keras.Sequential(",
        )
    )
    rates = {"type": "choice", "values": [0.001, 1e30]}
    units = {"type": "choice", "values": [64, 128]}
    project.update_params({"tune": {"strategy": "grid", "grid": {"max_trials": None}, "max_epochs": 2}})
    project.update_params({"tune": {"space": {"units": units, "learning_rate": rates}}})
    assert "ValueError: too wide" in tune(project)
    trials = pd.read_csv(project.folder / "metrics/plots/trials.csv")
    assert trials["failure"].notna().tolist() == [False, True, True, True]
    assert trials["val_accuracy"].isna().tolist() == [False, True, True, True]
    assert " is nan after epoch " in trials["failure"][1]
    assert trials["failure"][3] == "ValueError: too wide"
    metrics = json.loads((project.folder / "metrics/tune.json").read_text())
    assert (metrics["hyperparameters"]["units"], metrics["hyperparameters"]["learning_rate"]) == (64, 0.001)
    assert metrics["failed_trials"] == 3
    project.update_params({"tune": {"space": {"units": {"type": "choice", "values": [128]}}}})
    done = project.stage("tune", check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "error: all trials (1) failed; the first: ValueError: too wide"


def test_workers_that_die_again_and_again_change_nothing(project):
    """Dask gives a training up that several workers died of; the same workers could have died of anything else."""
    expected = project.outputs()
    project.empty_store()
    project.update_params({"runtime": {"workers": 1}})
    search = start(project)
    wait_for_store(project, 1, search)
    killed = set()
    while len(killed) < 6 and search.poll() is None:
        for process in processes_of(search):
            try:
                worker = not process.children() and process.pid not in killed and sum(process.cpu_times()[:2]) > 0.2
                if worker and "resource_tracker" not in " ".join(process.cmdline()):
                    process.kill()
                    killed.add(process.pid)
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.05)
    output = search.communicate(timeout=120)[0]
    assert search.returncode == 0, output
    assert len(killed) == 6
    assert project.outputs() == expected


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense", "silent"])
def test_a_scheduler_that_cannot_be_reached_is_one_line(project, address):
    project.empty_store()
    before = project.outputs()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections and says nothing
        address = address.replace("silent", f"tcp://127.0.0.1:{silent.getsockname()[1]}")
        search = start(project, DASK_SCHEDULER_ADDRESS=address)
        output = search.communicate(timeout=60)[0]
    assert search.returncode == 1
    assert output.startswith(f"error: DASK_SCHEDULER_ADDRESS is {address}, but no scheduler answers there within 10 s")
    assert output.count("\n") == 1
    assert project.outputs() == before


def commands(section: str) -> str:
    """The shell lines of a section of docs/cluster.md."""
    return (ROOT / "docs/cluster.md").read_text().partition(f"\n## {section}\n")[2].partition("```sh\n")[2].partition("```")[0]


def certificates(home: Path) -> dict[str, str]:
    """Make certificates as docs/cluster.md says, in a home of their own; return the variables that say where they are."""
    home.mkdir()
    script, environment = f"set -e\n{commands('TLS')}\nexec env -0", {**ENVIRONMENT, "HOME": str(home)}
    done = subprocess.run(["sh", "-c", script], env=environment, check=True, capture_output=True, text=True)
    variables = dict(line.split("=", 1) for line in done.stdout.rstrip("\0").split("\0"))
    return {name: value for name, value in variables.items() if name.startswith("DASK_DISTRIBUTED__COMM__")}


def test_with_tls_the_same_bytes_and_without_the_right_certificates_one_line(project, tmp_path):
    expected = project.outputs()
    project.empty_store()
    right, others = certificates(tmp_path / "home"), certificates(tmp_path / "other")
    with cluster_by_hand(tmp_path, "tls", **right) as (address, _, start_worker):
        start_worker()
        search = start(project, DASK_SCHEDULER_ADDRESS=address, **right)
        output = search.communicate(timeout=200)[0]
        assert search.returncode == 0, output
        assert project.outputs() == expected
        search = start(project, DASK_SCHEDULER_ADDRESS=address)
        output = search.communicate(timeout=60)[0]
        assert search.returncode == 1
        line = r"error: DASK_SCHEDULER_ADDRESS is tls://.+ no scheduler answers .+ ca-file None, client.cert None, .+\n"
        assert re.fullmatch(line, output), output
        ca, cert = "DASK_DISTRIBUTED__COMM__TLS__CA_FILE", "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT"
        for scheme, wrong, why in [
            ("tls", {ca: "/nowhere"}, "No such file or directory"),
            ("tls", {ca: others[ca]}, "TLS certificate does not match"),
            ("tls", {cert: others[cert]}, ""),  # the scheduler closes the connection
            ("tcp", {}, "encryption required"),
        ]:
            there = address.replace("tls", scheme)
            named = {name.removeprefix("DASK_").replace("__", ".").lower(): value for name, value in {**right, **wrong}.items()}
            with (
                dask.config.set({**named, "scheduler-address": there}),
                pytest.raises(UserError, match=rf"^DASK_SCHEDULER_ADDRESS is {there}, but no scheduler .+{why}.+$"),
                Cluster(None) as cluster,
            ):
                cluster.client  # noqa: B018 - connects
    assert project.outputs() == expected


def test_certificates_for_a_cluster_do_not_matter_on_this_machine(project):
    expected = project.outputs()
    project.empty_store()
    search = start(project, DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION="True", DASK_DISTRIBUTED__COMM__TLS__CA_FILE="/nowhere")
    output = search.communicate(timeout=120)[0]
    assert search.returncode == 0, output
    assert project.outputs() == expected


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def machines():
    """Network namespaces, by name; a switch in `here`, whose address is 10.77.0.1, connects them."""
    names = {name: f"{name}-{os.getpid()}" for name in ("here", "one", "two")}
    here, made = names["here"], []
    try:
        try:
            for namespace in names.values():
                ip("netns", "add", namespace)
                made.append(namespace)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"this test needs network namespaces: Linux, root, iproute2 ({error})")
        ip("-n", here, "link", "add", "switch", "type", "bridge")
        for number, (name, namespace) in enumerate(names.items(), start=1):
            if name != "here":
                ip("-n", here, "link", "add", name, "type", "veth", "peer", "name", "switch", "netns", namespace)
                ip("-n", here, "link", "set", name, "master", "switch", "up")
            ip("-n", namespace, "address", "add", f"10.77.0.{number}/24", "dev", "switch")
            ip("-n", namespace, "link", "set", "switch", "up")
            ip("-n", namespace, "link", "set", "lo", "up")
        yield names
    finally:
        for namespace in made:
            ip("netns", "delete", namespace)


def test_a_machine_whose_cable_is_cut_and_one_that_comes_late_change_nothing(project, machines, tmp_path):
    """All that the first was doing is done by the second, once the connections to the first count as dead."""
    expected = project.outputs()
    project.empty_store()
    here, one, two = (("ip", "netns", "exec", machine) for machine in machines.values())
    quick = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "20s"}  # in which the second starts
    with cluster_by_hand(tmp_path, host="10.77.0.1", before=here, **quick) as (address, _, start_worker):
        start_worker(before=one)
        search = start(project, before=here, DASK_SCHEDULER_ADDRESS=address)
        wait_for_store(project, 1, search)
        ip("-n", machines["here"], "link", "set", "one", "down")
        start_worker(before=two)
        output = search.communicate(timeout=200)[0]
        assert search.returncode == 0, output
    assert project.outputs() == expected
