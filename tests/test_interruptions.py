"""The search killed, interrupted, and with workers that die: it goes on to the same result."""

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
from searches import busiest, processes_of, start, wait_for_store, wait_until_gone


def pipes(process: psutil.Process) -> set[str]:
    """The pipes that `process` has open beside its standard streams."""
    files = {int(path.name): path.readlink().name for path in Path(f"/proc/{process.pid}/fd").iterdir()}
    return {name for number, name in files.items() if number > 2 and name.startswith("pipe")}


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
    """One of three, which is another number than that of the cores.

    Dask's settings for a cluster with certificates do not matter on this machine, nor does Keras's for another backend. The
    process that workers are forked from has no pipe of Python's resource tracker, for whose end some versions of Python wait.
    """
    expected = project.outputs()
    project.empty_store()
    project.update_params({"runtime": {"workers": 3}})
    certificates = {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True", "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": "/nowhere"}
    search = start(project, **certificates, KERAS_BACKEND="jax")
    wait_for_store(project, 2, search)
    children = set(psutil.Process(search.pid).children())
    tracker = next(process for process in children if "resource_tracker" in " ".join(process.cmdline()))
    (server,) = children - {tracker}
    assert pipes(server)
    assert not pipes(tracker) & pipes(server)
    busiest(processes_of(search)).kill()
    output = search.communicate(timeout=120)[0]
    assert search.returncode == 0, output
    assert project.outputs() == expected


def test_ctrl_c_ends_in_seconds_and_keeps_what_is_finished(here, project):
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
    assert ", 0 of them" not in here("tune")


def test_workers_that_die_again_and_again_change_nothing(here, project):
    """Dask gives a training up that two workers died of; the same workers could have died of anything else."""
    budget = {"strategy": "random", "random": {"max_trials": 4}, "max_epochs": 100, "early_stopping": None}
    here("tune", {"runtime": {"workers": 1}, "tune": budget})
    expected = project.outputs()
    project.empty_store()
    search = start(project, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="1")
    wait_for_store(project, 1, search)
    killed = set()
    while len(killed) < 3 and search.poll() is None:
        for process in processes_of(search):
            with suppress(psutil.NoSuchProcess):
                worker = process.ppid() != search.pid and process.pid not in killed
                if worker and sum(process.cpu_times()[:2]) > 0.2:
                    process.kill()
                    killed.add(process.pid)
        time.sleep(0.02)
    output = search.communicate(timeout=120)[0]
    assert search.returncode == 0, output
    assert len(killed) == 3
    assert project.outputs() == expected
