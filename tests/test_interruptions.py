"""A search that is killed, interrupted or loses workers resumes and has the same result."""

import os
import re
import signal
import time
from contextlib import suppress

import dask
import pandas as pd
import psutil
import pytest
from searches import busiest, processes_of, start, wait_for_store, wait_until_gone

import stages.tune
from stages.base.console import UserError
from stages.search import tuning
from stages.search.tuning import TRIALS


def test_killed_interrupted_and_with_a_dead_worker_the_search_goes_on_to_the_same_result(project):
    """It begins with three workers, not one per core.

    Dask's settings for a cluster with certificates have no effect here, nor has a setting for another backend
    of Keras.
    """
    expected, params = project.outputs(), (project.folder / "params.yaml").read_text()
    project.empty_store()
    project.update_params({"runtime": {"workers": 3}})
    certificates = {
        "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
        "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": "/nowhere",
    }
    search = start(project, **certificates, KERAS_BACKEND="jax")
    wait_for_store(project, 1, search)
    busiest(processes_of(search)).kill()
    wait_for_store(project, 3, search)
    workers = processes_of(search)
    search.kill()
    search.communicate()
    wait_until_gone(workers)
    (project.folder / "params.yaml").write_text(params)
    stored = len(list((project.folder / "data/trials").glob("*.npz")))
    repro, trials = ["dvc", "repro", "--force", "--single-item", "tune"], project.folder / TRIALS
    search = start(project, *repro)
    wait_for_store(project, stored + 1, search)  # by then DVC has deleted the stage's outputs
    while not trials.exists():
        time.sleep(0.02)
    workers = processes_of(search)
    pressed = time.monotonic()
    os.killpg(search.pid, signal.SIGINT)
    output = search.communicate(timeout=30)[0]
    assert time.monotonic() - pressed < 10
    assert search.returncode != 0
    assert "\ninterrupted; `dvc repro` goes on from here\n" in output
    assert "Traceback" not in output
    wait_until_gone(workers)
    assert 1 <= len(pd.read_csv(trials)) < expected[TRIALS].count("\n") - 1  # the trials that were done
    project.dvc("plots", "show", TRIALS)
    output = project.run(*repro).stdout
    assert not output.endswith(", 0 of them from data/trials\n")
    assert project.outputs() == expected


@pytest.mark.weekly
def test_workers_that_die_again_and_again_change_nothing(here, project):
    """Three may die, since Dask gives up a task only when four workers have died while running it."""
    budget = {"strategy": "random", "random": {"max_trials": 4}, "max_epochs": 40, "early_stopping": None}
    here("tune", {"runtime": {"workers": 1}, "tune": budget})
    expected = project.outputs()
    project.empty_store()
    search = start(project)
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


def kill_at(project, units: int) -> None:
    """Have building a network with that many units kill the process."""
    model = project.folder / "stages/training/model.py"
    arguments = "(shapes, outputs, hyperparameters)"
    lines = [
        "import os, signal",
        "_build = build",
        f"def build{arguments}:",
        f"    if hyperparameters.units == {units}:",
        "        os.kill(os.getpid(), signal.SIGKILL)",
        f"    return _build{arguments}",
    ]
    model.write_text("\n".join([model.read_text(), *lines, ""]))


def test_a_network_that_kills_its_worker_is_a_failed_trial_and_the_others_go_on(project):
    project.empty_store()
    kill_at(project, 48)
    space = {"units": {"type": "choice", "values": [16, 48, 32]}}
    tune = {"strategy": "grid", "max_epochs": 2, "space": space}
    project.update_params({"tune": tune, "baseline": {"units": 16}})
    done = project.stage("tune")
    assert re.search(r"the worker died \d times while training it, perhaps out of memory", done.stdout), (
        done.stdout
    )
    trials = pd.read_csv(project.folder / "metrics/plots/trials.csv")[1:].set_index("units")
    assert trials["failure"].notna().to_dict() == {16: False, 48: True, 32: False}
    assert project.metrics("tune")["failed_trials"] == 1


def test_ctrl_c_while_workers_start_is_one_line(project):
    """A terminal also sends SIGINT to the fork server, which takes seconds to import TensorFlow."""
    project.empty_store()
    for seconds in (0.3, 2):
        stage = start(project, "python", "-m", "stages.baseline")
        while not processes_of(stage):
            time.sleep(0.02)
        time.sleep(seconds)
        os.killpg(stage.pid, signal.SIGINT)
        said, _ = stage.communicate(timeout=60)
        lines = [line for line in said.splitlines() if not line.startswith("baseline: 5 trainings")]
        assert (stage.returncode, lines) == (130, ["interrupted; `dvc repro` goes on from here"])


def test_a_package_that_only_the_network_needs_is_named(project):
    """All workers of this machine have the same packages, so trying another would not help."""
    path = project.folder / "stages/training/model.py"
    path.write_text(f"import not_installed\n{path.read_text()}")
    done = project.stage("baseline", check=False)
    said = "ModuleNotFoundError: No module named 'not_installed'; install it, or fix the file"
    assert (done.returncode, done.stdout.splitlines()[1:]) == (
        1,
        [f"error: stages/training/model.py, line 1: {said}"],
    )


NO_MEMORY = r"(baseline: .+|no worker can start)\b.*out of memory|there are no workers \(.+\)"


@pytest.mark.weekly
@pytest.mark.parametrize(
    ("before", "said"),
    [
        (
            "ulimit -n 20;",
            r"too many open files|this machine cannot start workers \(.+\)|there are no workers \(.+\)",
        ),
        ("ulimit -v 1000000;", NO_MEMORY),
        ("ulimit -v 1700000;", NO_MEMORY),
        ("ulimit -v 1850000;", NO_MEMORY),
        ("exec unshare --net", r"this machine cannot start workers \(.+\)"),  # without a loopback device
    ],
)
def test_a_machine_that_cannot_start_workers_is_one_line(project, before, said):
    project.empty_store()
    done = project.run("bash", "-c", f"{before} python -m stages.baseline", check=False)
    assert done.returncode == 1
    assert re.match(rf"error: ({said})", done.stdout.splitlines()[-1]), done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.weekly
def test_a_repository_in_any_folder_keeps_its_store_in_itself(reproduced, tmp_path):
    """Even if its name has a URL's separators, and the name of the temporary folder is long.

    Slurm, Nix, Bazel and others have such long names, but the path of a Unix socket has at most 107 bytes.
    """
    project = reproduced.copy(tmp_path / "a::b")
    project.empty_store()
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    project.run("env", f"TMPDIR={folder}", "python", "-m", "stages.baseline")
    assert len(list((project.folder / "data/trials").glob("*.npz"))) == 5


def test_losing_the_only_worker_before_the_first_training_is_one_line(project, by_hand, monkeypatch):
    project.empty_store()
    before = project.outputs()
    monkeypatch.setattr("stages.compute.workers.TIMEOUT", 2)
    monkeypatch.chdir(project.folder)
    address, _, start_worker = by_hand
    worker = start_worker()
    search = tuning.search

    def kill_and_search(*arguments, **options):
        worker.kill()
        worker.wait()
        return search(*arguments, **options)

    monkeypatch.setattr(tuning, "search", kill_and_search)
    line = r"^there are no workers; start one with `dask worker tcp://.+`$"
    with dask.config.set({"scheduler-address": address}), pytest.raises(UserError, match=line):
        stages.tune.main()
    assert project.outputs() == before


@pytest.mark.weekly
def test_a_worker_that_cannot_import_tensorflow_is_one_line(project, tmp_path):
    """The import raises, or ends the process, as on an unsupported CPU."""
    packages = tmp_path / "packages/tensorflow"
    packages.mkdir(parents=True)
    for code, said in (
        ("raise ImportError('no AVX')", "ImportError: no AVX"),
        ("import os; os._exit(132)", ".+"),
    ):
        (packages / "__init__.py").write_text(code)
        done = project.run(
            "env", f"PYTHONPATH={packages.parent}", "python", "-m", "stages.baseline", check=False
        )
        assert done.returncode == 1
        assert re.fullmatch(rf"error: .+ \(.*{said}.*\).*", done.stdout.splitlines()[-1]), done.stdout
        assert "Traceback" not in done.stdout
