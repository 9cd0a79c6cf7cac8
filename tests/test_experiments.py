"""Experiments as a user queues, runs, lists and repeats them: each strategy is one."""

import io
import json
import re
import shlex
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import ENVIRONMENT, ran

from stages.base.params import load

ROOT = Path(__file__).parent.parent
QUEUED = {"random": 3, "bayesian": 5}  # strategies, and how many trials they have
OTHERS = {"grid": 4, "sklearn": 4}


@pytest.fixture(scope="module")
def experimented(reproduced, tmp_path_factory):
    """A copy in which experiments were queued and run, two at a time, and kept with their names."""
    project = reproduced.copy(tmp_path_factory.mktemp("experimented") / "project")
    for strategy in QUEUED:
        project.dvc("exp", "run", "--queue", "--name", strategy, "--set-param", f"tune.strategy={strategy}")
    start = ["dvc", "queue", "start", "--jobs", "2"]  # its output would be held open by the workers that it leaves behind
    subprocess.run(start, cwd=project.folder, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while len(experiments(project)) < len(QUEUED) and time.monotonic() < deadline:
        time.sleep(1)
    while re.search("Queued|Running", status := project.dvc("queue", "status")) and time.monotonic() < deadline:
        time.sleep(1)
    assert len(re.findall("Success", status)) == len(QUEUED), status
    project.dvc("queue", "stop")
    return project


def experiments(project) -> dict[str, str]:
    """The references of the experiments that are done, by their names."""
    refs = project.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").stdout.split()
    return {name: ref for ref in refs if (name := ref.rpartition("/")[2]) in QUEUED}


def check(tune: dict, trials: pd.DataFrame, strategy: str, count: int) -> None:
    assert tune["strategy"] == strategy
    assert tune["trials"] == len(trials) == count
    for name, dimension in load(ROOT / "params.yaml").tune.space.items():
        assert trials[name].between(*dimension.extremes()).all()
        assert ((trials[name] - dimension.min) % dimension.step == 0).all()
    assert trials["val_accuracy"].gt(0.5).any()
    assert tune["best"]["score"] == trials["val_accuracy"].max()
    assert trials["standard_error"].gt(0).all()


@pytest.mark.parametrize("strategy", QUEUED)
def test_a_strategy_is_an_experiment(experimented, strategy):
    ref = experiments(experimented)[strategy]
    tune, trials = (
        experimented.run("git", "show", f"{ref}:metrics/{name}").stdout for name in ("tune.json", "plots/trials.csv")
    )
    check(json.loads(tune), pd.read_csv(io.StringIO(trials)), strategy, QUEUED[strategy])


@pytest.mark.parametrize("strategy", OTHERS)
def test_the_other_strategies(here, project, strategy):
    here("tune", {"tune": {"strategy": strategy}})
    check(project.metrics("tune"), pd.read_csv("metrics/plots/trials.csv"), strategy, OTHERS[strategy])


def test_the_documentations_table_of_experiments(experimented):
    command = next(
        line for line in (ROOT / "docs/experiments.md").read_text().splitlines() if line.startswith("dvc exp show --drop")
    )
    shown = experimented.dvc(*shlex.split(command)[1:], "--csv")
    head, *rows = [line.split(",") for line in shown.splitlines()]
    assert len(head) == 8
    assert {"verdict", "tune.strategy", "test_accuracy.low"} <= set(head)
    assert [row[0] for row in rows[:2]] == ["", ""]  # the workspace and the commit
    assert {row[0] for row in rows[2:]} == set(QUEUED)


def test_a_strategy_that_was_run_before_comes_from_the_run_cache(experimented):
    assert ran(experimented.dvc("exp", "run", "--set-param", "tune.strategy=random")) == []
    assert experimented.metrics("tune")["strategy"] == "random"
    experimented.run("git", "reset", "--hard", "--quiet")
