"""Experiments, one for each strategy, as a user queues, runs, lists and repeats them."""

import io
import json
import shlex
from pathlib import Path

import pandas as pd
import pytest
from conftest import QUEUED, ran

ROOT = Path(__file__).parent.parent
OTHERS = {"grid": 4, "sklearn": 4}


def check(tune: dict, trials: pd.DataFrame, strategy: str, count: int) -> None:
    assert tune["strategy"] == strategy
    assert tune["trials"] == count
    assert trials["trial"].tolist() == list(range(count + 1))  # 0 is the baseline
    assert trials["units"].isin(range(16, 513, 16)).all()
    assert trials["val_accuracy"].gt(0.5).any()
    assert tune["best"]["score"] == trials["val_accuracy"].max()
    assert trials["standard_error"].gt(0).all()


@pytest.mark.parametrize("strategy", QUEUED)
def test_a_strategy_is_an_experiment(experimented, strategy):
    ref = experimented.experiments()[strategy]
    tune, trials = (
        experimented.run("git", "show", f"{ref}:metrics/{name}").stdout
        for name in ("tune.json", "plots/trials.csv")
    )
    check(json.loads(tune), pd.read_csv(io.StringIO(trials)), strategy, QUEUED[strategy])


@pytest.mark.parametrize("strategy", OTHERS)
def test_the_other_strategies(here, project, strategy):
    here("tune", {"tune": {"strategy": strategy}})
    check(project.metrics("tune"), pd.read_csv("metrics/plots/trials.csv"), strategy, OTHERS[strategy])


def test_the_documentations_table_of_experiments(experimented):
    command = next(
        line
        for line in (ROOT / "docs/experiments.md").read_text().splitlines()
        if line.startswith("dvc exp show --drop")
    )
    shown = experimented.dvc(*shlex.split(command)[1:], "--csv")
    head, *rows = [line.split(",") for line in shown.splitlines()]
    assert len(head) == 7
    assert {"verdict", "tune.strategy", "best.score"} <= set(head)
    assert [row[0] for row in rows[:2]] == ["", ""]  # the workspace and the commit
    assert {row[0] for row in rows[2:]} == set(QUEUED)


def test_a_strategy_that_was_run_before_comes_from_the_run_cache(experimented, tmp_path):
    project = experimented.copy(tmp_path / "project")
    assert ran(project.dvc("exp", "run", "--set-param", "tune.strategy=random")) == []
    assert project.metrics("tune")["strategy"] == "random"
