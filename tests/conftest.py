"""Scratch copies of this repository, with small real data and a small budget, for tests of real commands.

All tests use the network and the score of tests/project in place of this repository's, so that a fork does
not have to change them.
"""

import fcntl
import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = (
    "1"  # before NumPy: its threads wait for each other where two tests run side by side
)

import dask
import pandas as pd
import pytest
import yaml

import stages.training
from stages.base.files import WRITING
from stages.compute import code

ROOT = Path(__file__).parent.parent
OWN = Path(__file__).parent / "project"  # files that replace this repository's in the tests
stages.training.__path__.insert(0, str(OWN / "stages/training"))  # for imports in the tests' own process
ENVIRONMENT = {
    **os.environ,
    # the scripts in dvc.yaml run `python`: the one that runs the tests
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "DVC_NO_ANALYTICS": "1",
    **{
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "t"), ("EMAIL", "t@t"))
    },
}
QUEUED = {"random": 3, "bayesian": 5}  # strategies, and how many trials they have


def ran(output: str) -> list[str]:
    """The stages that DVC ran, according to its output."""
    return re.findall(r"Running stage '(\w+)'", output)


class Project:
    """A copy of this repository in `folder`, with methods that run commands there."""

    def __init__(self, folder: Path):
        self.folder, self.environment = folder, dict(ENVIRONMENT)

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess:
        """Run `command`, stderr in stdout; AssertionError with all it printed if `check` and it fails."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=900,
        )
        assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
        return done

    def dvc(self, *arguments: str, check: bool = True) -> str:
        """Run the real `dvc` and return what it printed."""
        return self.run("dvc", *arguments, check=check).stdout

    def stage(self, name: str, check: bool = True) -> subprocess.CompletedProcess:
        """Run a stage's script as dvc.yaml does."""
        return self.run("python", "-m", f"stages.{name}", check=check)

    def update_params(self, changes: dict) -> None:
        """Merge `changes` into params.yaml."""

        def merge(old: dict, new: dict) -> dict:
            return {
                **old,
                **{
                    k: merge(old[k], v) if isinstance(v, dict) and k != "space" else v for k, v in new.items()
                },
            }

        path = self.folder / "params.yaml"
        path.write_text(yaml.safe_dump(merge(yaml.safe_load(path.read_text()), changes), sort_keys=False))

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", "state")

    def empty_store(self) -> None:
        """Forget all trainings."""
        shutil.rmtree(self.folder / "data/trials", ignore_errors=True)

    def experiments(self) -> dict[str, str]:
        """Return the references of the experiments of `QUEUED` that are done, by their names."""
        refs = self.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").stdout.split()
        return {name: ref for ref in refs if (name := ref.rpartition("/")[2]) in QUEUED}

    def metrics(self, name: str) -> dict:
        """Return the content of metrics/NAME.json."""
        return json.loads((self.folder / "metrics" / f"{name}.json").read_text())

    def copy(self, folder: Path) -> "Project":
        """Return a copy of it in the new `folder`."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)

    def outputs(self) -> dict[str, object]:
        """Return everything that the stages wrote, by path, without what depends on the machine."""

        def without_seconds(content: dict) -> dict:
            kept = {key: value for key, value in content.items() if "seconds" not in key}
            if "summary" in kept:
                kept["summary"] = [part for part in kept["summary"] if not part.startswith("trained in")]
            return kept

        def decided(name: str, content: bytes) -> object:
            if name.endswith(".json"):
                return json.loads(content, object_hook=without_seconds)
            if name.endswith("trials.csv"):
                return pd.read_csv(io.BytesIO(content), dtype=str).drop(columns="seconds_per_epoch").to_csv()
            if name.endswith("answer.csv"):
                return [row for row in content.splitlines() if b"seconds" not in row]
            return content

        files = self.files("data/prepared", "data/baseline", "data/tune", "data/retrain", "metrics")
        return {name: decided(name, content) for name, content in files.items()}

    def files(self, *folders: str) -> dict[str, bytes]:
        """Return the content of every file below `folders`, by path, without temporary files."""
        paths = [path for folder in folders for path in sorted((self.folder / folder).rglob("*"))]
        paths = [path for path in paths if path.is_file() and WRITING not in str(path)]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}


# The first of these needs the fixtures `reproduced` and `experimented`, the next two do not
LONGEST = [
    "report",
    "examples",
    "fork",
    "cluster",
    "network",
    "interruptions",
    "pipeline",
    "experiments",
    "training",
]


def pytest_collection_modifyitems(items):
    """Tests that need a project or a cluster are slow; the longest files come first."""
    for item in items:
        if {"make_project", "elsewhere", "by_hand"} & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: [*(f"test_{name}" for name in LONGEST), item.path.stem].index(item.path.stem))


@pytest.fixture(scope="session")
def make_project():
    """A function to make a `Project` in a folder: the working tree as a new Git repository.

    Unless `unchanged`, it has the files of tests/project, and no data or remote storage of a fork.
    """

    def make(folder: Path, unchanged: bool = False) -> Project:
        project = Project(folder)
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).exists() and (unchanged or not name.endswith(".dvc")):
                (project.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, project.folder / name)
        project.run("git", "init", "--quiet", "--initial-branch=main")
        if not unchanged:
            shutil.copytree(OWN, folder, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
            (folder / ".dvc/config").write_text("[core]\n    autostage = true\n")
            pipeline = yaml.safe_load((folder / "dvc.yaml").read_text())
            prepare = pipeline["stages"]["prepare"]
            prepare["deps"] = [dep for dep in prepare["deps"] if str(dep).startswith("stages/")]
            (folder / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
        project.commit()
        return project

    return make


@pytest.fixture(scope="session")
def made_once(tmp_path_factory, worker_id):
    """A function that returns a project which all test processes share and must not change.

    It takes a name and a function that makes the project in a folder, which only the first process calls, and
    which returns the project's `output`.
    """

    def get(name: str, make: Callable[[Path], str]) -> Project:
        folder = tmp_path_factory.getbasetemp()
        folder = (folder if worker_id == "master" else folder.parent) / name
        output = folder.with_suffix(".output")
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not output.exists():
                assert not folder.exists(), f"another process could not make {name}: see its tests"
                output.write_text(make(folder))
        project = Project(folder)
        project.output = output.read_text()
        return project

    return get


@pytest.fixture(scope="session")
def reproduced(make_project, made_once, elsewhere) -> Project:
    """A project after `dvc repro`, committed."""

    def make(folder: Path) -> str:
        project = make_project(folder)
        project.environment |= elsewhere
        output = project.dvc("repro")
        project.commit()
        return output

    return made_once("reproduced", make)


@pytest.fixture(scope="session")
def experimented(reproduced, made_once, elsewhere) -> Project:
    """A copy of `reproduced` in which an experiment for each of `QUEUED` was queued and run two at a time."""

    def make(folder: Path) -> str:
        project = reproduced.copy(folder)
        project.environment |= elsewhere
        for strategy in QUEUED:
            project.dvc(
                "exp", "run", "--queue", "--name", strategy, "--set-param", f"tune.strategy={strategy}"
            )
        start = [
            "dvc",
            "queue",
            "start",
            "--jobs",
            "2",
        ]  # the workers that it leaves behind would keep its output open
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(start, cwd=folder, env=project.environment, check=True, **quiet)
        deadline = time.monotonic() + 240
        while len(project.experiments()) < len(QUEUED) and time.monotonic() < deadline:
            time.sleep(1)
        while (
            re.search("Queued|Running", status := project.dvc("queue", "status"))
            and time.monotonic() < deadline
        ):
            time.sleep(3)
        assert len(re.findall("Success", status)) == len(QUEUED), status
        project.dvc("queue", "stop")
        while (
            "Worker status: 0 active, 0 idle" not in project.dvc("queue", "status")
            and time.monotonic() < deadline
        ):
            time.sleep(1)
        return status

    return made_once("experimented", make)


@pytest.fixture
def project(reproduced, tmp_path, monkeypatch) -> Project:
    """A copy of the reproduced project, for tests that change it; workers get its code."""
    monkeypatch.setattr(code, "ROOT", tmp_path / "project")
    return reproduced.copy(tmp_path / "project")


@pytest.fixture
def by_hand(tmp_path):
    """What `cluster_by_hand` yields."""
    from searches import cluster_by_hand

    with cluster_by_hand(tmp_path) as started:
        yield started


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory):
    """Environment variables that make stages train on two workers that stay up, to save time."""
    from searches import cluster_by_hand

    with cluster_by_hand(tmp_path_factory.mktemp("elsewhere")) as (address, _, start_worker):
        start_worker()
        start_worker()
        yield {"DASK_SCHEDULER_ADDRESS": address}


@pytest.fixture(scope="session")
def client(elsewhere):
    """A client of the same two workers, for stages that run in the tests' own process."""
    from stages.compute.cluster import connect

    with ExitStack() as stack:
        with dask.config.set({"scheduler-address": elsewhere["DASK_SCHEDULER_ADDRESS"]}):
            started = stack.enter_context(connect(None))
        yield started


@pytest.fixture
def here(project, client, monkeypatch, capsys):
    """A function that changes `project`'s params.yaml, runs a stage here on `client`, returns its output."""
    monkeypatch.chdir(project.folder)

    def run(stage: str, changes: dict | None = None) -> str:
        project.update_params(changes or {})
        script = importlib.import_module(f"stages.{stage}")
        monkeypatch.setattr(script, "connect", lambda _: nullcontext(client), raising=False)
        capsys.readouterr()
        script.main()
        return capsys.readouterr().out

    return run
