"""A scratch copy of this repository, on a small real data set with a small budget, for tests that run the real commands."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {
    **os.environ,
    # the scripts in dvc.yaml run `python`: the one that runs the tests
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "DVC_NO_ANALYTICS": "1",
    **{f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "t"), ("EMAIL", "t@t"))},
}
SMALL = {  # scikit-learn's 1,797 handwritten digits; seven trials of Hyperband
    "prepare": {"dataset": "digits"},
    "baseline": {"units": 96},
    "train": {"epochs": 2, "replicates": 3},
    "compare": {"margin": 0.02},
    "tune": {
        "max_epochs": 4,
        "target_accuracy": 0.7,
        "space": {"units": {"type": "int", "min": 8, "max": 128, "step": 8}},
        "hyperband": {"factor": 4},
        "random": {"max_trials": 3},
        "bayesian": {"max_trials": 5},
        "grid": {"max_trials": 4},
        "sklearn": {"max_trials": 4, "cv": 2},
    },
}


class Project:
    """A folder with this repository in it, and how to run commands there."""

    def __init__(self, folder: Path):
        self.folder = folder

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess:
        """Run `command`, standard error in with standard output; AssertionError with all it printed if `check` and it fails."""
        done = subprocess.run(
            command, cwd=self.folder, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300
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
            return {**old, **{k: merge(old[k], v) if isinstance(v, dict) and k != "space" else v for k, v in new.items()}}

        path = self.folder / "params.yaml"
        path.write_text(yaml.safe_dump(merge(yaml.safe_load(path.read_text()), changes), sort_keys=False))

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", "state")

    def empty_store(self) -> None:
        """Forget all trainings."""
        shutil.rmtree(self.folder / "data/trials", ignore_errors=True)

    def outputs(self) -> dict[str, object]:
        """Return all that the stages wrote, by path, without what the machine decides."""

        def without_seconds(content: dict) -> dict:
            kept = {key: value for key, value in content.items() if "seconds" not in key}
            if "summary" in kept:
                kept["summary"] = [part for part in kept["summary"] if not part.endswith("per epoch,")]
            return kept

        def decided(name: str, content: bytes) -> object:
            if name.endswith(".json"):
                return json.loads(content, object_hook=without_seconds)
            if name.endswith("trials.csv"):
                return pd.read_csv(io.BytesIO(content), dtype=str).drop(columns="seconds_per_epoch").to_csv()
            return content

        files = self.files("data/prepared", "data/baseline", "data/tune", "data/retrain", "metrics")
        return {name: decided(name, content) for name, content in files.items()}

    def files(self, *folders: str) -> dict[str, bytes]:
        """Return the content of every file below `folders`, by path."""
        paths = [path for folder in folders for path in sorted((self.folder / folder).rglob("*")) if path.is_file()]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="session")
def make_project(tmp_path_factory):
    """A function that makes a `Project`: the working tree's files as a fresh Git repository, params.yaml made small."""

    def make() -> Project:
        project = Project(tmp_path_factory.mktemp("project"))
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).exists():
                (project.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, project.folder / name)
        project.run("git", "init", "--quiet", "--initial-branch=main")
        project.update_params(SMALL)
        project.commit()
        return project

    return make


@pytest.fixture(scope="session")
def reproduced(make_project) -> Project:
    """A project after `dvc repro`, committed. Tests that change it put it back."""
    project = make_project()
    project.output = project.dvc("repro")
    project.commit()
    return project


@pytest.fixture
def project(reproduced) -> Project:
    """The reproduced project; whatever a test does to its files is undone afterwards."""
    yield reproduced
    reproduced.run("git", "reset", "--hard", "--quiet")
    reproduced.run("git", "clean", "-dfq")
    reproduced.dvc("checkout", "--force", "--quiet")
