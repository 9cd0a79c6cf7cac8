"""The pipeline as a user runs it: the real scripts, the real `dvc`, real handwritten digits."""

import json
import re
import time

import pandas as pd
import pytest

STRATEGIES = ("hyperband", "random", "bayesian", "grid", "sklearn")
TRAINED_KEYS = [
    *("units", "dropout", "learning_rate", "parameters", "epochs", "train_accuracy", "train_loss"),
    *("test_accuracy", "test_loss", "seconds_per_epoch"),
]


def ran(output: str) -> list[str]:
    """The stages that DVC says it ran."""
    return re.findall(r"Running stage '(\w+)'", output)


def metrics(project, name: str) -> dict:
    return json.loads((project.folder / "metrics" / f"{name}.json").read_text())


def test_repro_runs_all_stages_and_the_metrics_belong_together(project):
    assert ran(project.output) == ["prepare", "baseline", "tune", "retrain"]
    baseline, tune, retrain = metrics(project, "baseline"), metrics(project, "tune"), metrics(project, "retrain")
    assert list(baseline) == list(retrain) == TRAINED_KEYS
    assert (baseline["units"], baseline["parameters"]) == (96, 64 * 96 + 96 + 96 * 10 + 10)
    assert retrain["units"] == tune["units"]
    assert baseline["test_accuracy"] > 0.8
    assert metrics(project, "comparison")["parameters"] == {
        "baseline": baseline["parameters"],
        "tuned": retrain["parameters"],
        "change": retrain["parameters"] - baseline["parameters"],
    }
    trials = pd.read_csv(project.folder / "metrics/plots/trials.csv")
    assert tune["trials"] == len(trials) == 7
    assert tune["best_score"] == trials["val_accuracy"].max()
    assert tune["units"] == trials["units"][trials["val_accuracy"].idxmax()]
    assert len(pd.read_csv(project.folder / "metrics/plots/retrain.csv")) == retrain["epochs"] == 2


def test_the_console_is_for_people(project):
    assert "absl" not in project.output
    assert "oneDNN" not in project.output
    assert "Warning" not in project.output
    assert re.search(r"^7/7 trial \d: units=\d+ epochs=\d val_accuracy=0\.\d{4} best=0\.\d{4}$", project.output, re.M)
    for stage in ("prepare", "baseline", "tune", "retrain", "comparison"):
        assert re.search(rf"^{stage}: ", project.output, re.M)


def test_nothing_changed_runs_nothing(project):
    assert ran(project.dvc("repro")) == []


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_each_strategy_runs_tune_and_retrain_only(project, strategy):
    before = project.files("data/tune")
    stages = ran(project.dvc("exp", "run", "--set-param", f"tune.strategy={strategy}"))
    assert stages == (["tune", "retrain"] if project.files("data/tune") != before else ["tune"])
    tune, trials = metrics(project, "tune"), pd.read_csv(project.folder / "metrics/plots/trials.csv")
    assert tune["strategy"] == strategy
    assert tune["trials"] == len(trials) == {"random": 3, "bayesian": 5, "grid": 4, "sklearn": 4}[strategy]
    assert trials["units"].between(8, 128).all()
    assert (trials["units"] % 8 == 0).all()
    assert trials["val_accuracy"].gt(0.5).any()
    assert tune["best_score"] == trials["val_accuracy"].max()


def test_another_strategys_block_invalidates_nothing(project):
    assert ran(project.dvc("exp", "run", "--set-param", "tune.random.max_trials=2")) == []


def test_baseline_units_do_not_rerun_tune_but_its_dropout_does(project):
    assert ran(project.dvc("exp", "run", "--set-param", "baseline.units=32")) == ["baseline", "retrain"]
    project.run("git", "reset", "--hard", "--quiet")
    project.dvc("checkout", "--force", "--quiet")
    assert ran(project.dvc("exp", "run", "--set-param", "baseline.dropout=0.1")) == ["baseline", "tune", "retrain"]


def test_a_strategy_that_was_run_before_comes_from_the_run_cache(project):
    project.dvc("exp", "run", "--set-param", "tune.strategy=random")
    project.run("git", "reset", "--hard", "--quiet")
    output = project.dvc("exp", "run", "--set-param", "tune.strategy=random")
    assert ran(output) == []
    assert metrics(project, "tune")["strategy"] == "random"


def test_control_puts_the_baselines_units_beside_the_tuned(project):
    project.dvc("exp", "run", "--temp", "--name", "control", "--set-param", "retrain.from=baseline")
    changes = json.loads(project.dvc("metrics", "diff", "control", "--json"))["metrics/retrain.json"]
    units = metrics(project, "tune")["units"]
    assert changes["units"] == {"old": 96, "new": units, "diff": units - 96}
    assert "parameters" in changes
    baseline = metrics(project, "baseline")
    same = [key for key in TRAINED_KEYS if key in changes and key != "seconds_per_epoch"]
    assert [changes[key]["old"] for key in same] == [baseline[key] for key in same]


def test_queued_experiments_run(project):
    project.dvc("exp", "run", "--queue", "--set-param", "tune.strategy=hyperband,bayesian,random")
    project.dvc("queue", "start", "--jobs", "2")
    deadline = time.monotonic() + 240
    while re.search("Queued|Running", status := project.dvc("queue", "status")) and time.monotonic() < deadline:
        time.sleep(2)
    assert len(re.findall("Success", status)) == 3, status


def test_a_second_run_writes_the_same_bytes(project):
    before = project.outputs()
    project.empty_store()
    for stage in ("prepare", "baseline", "tune", "retrain"):
        project.stage(stage)
    assert project.outputs() == before


def test_tune_does_not_read_the_test_images(project):
    before = project.files("data/tune", "metrics/plots")
    project.empty_store()
    for path in (project.folder / "data/prepared/test").iterdir():
        path.unlink()
    project.stage("tune")
    assert project.files("data/tune", "metrics/plots") == before


def test_plots_are_drawn(project):
    project.dvc("plots", "show")
    page = (project.folder / "dvc_plots/index.html").read_text()
    assert all(title in page for title in ("Training accuracy of both networks", "training loss", "Trials of the search"))


@pytest.mark.parametrize("stage", ["prepare", "baseline", "tune", "retrain"])
def test_a_bad_param_stops_every_stage_before_it_writes(project, stage):
    project.update_params({"tune": {"strategy": "bayes"}})
    before = project.outputs()
    done = project.stage(stage, check=False)
    assert done.returncode == 1
    assert done.stdout == (
        "error: params.yaml: tune.strategy is bayes, but should be 'hyperband', 'random', 'bayesian', 'grid' or 'sklearn'\n"
    )
    assert project.outputs() == before


@pytest.mark.parametrize(
    ("stage", "missing"),
    [
        ("baseline", "data/prepared/train/images.npy"),
        ("tune", "data/prepared/validation/images.npy"),
        ("retrain", "data/tune/hyperparameters.json"),
        ("retrain", "metrics/baseline.json"),
    ],
)
def test_a_missing_input_is_named(project, stage, missing):
    (project.folder / missing).unlink()
    done = project.stage(stage, check=False)
    assert (done.returncode, done.stdout.count("\n")) == (1, 1)
    assert done.stdout.startswith(f"error: {missing} is missing; ")


def test_dvc_shows_the_mistake_in_a_param(project):
    project.update_params({"tune": {"max_epochs": 0}})
    done = project.run("dvc", "repro", check=False)
    assert done.returncode != 0
    assert "error: params.yaml: tune.max_epochs is 0, but should be greater than or equal to 1" in done.stdout
    assert "Traceback" not in done.stdout


def test_dvc_refuses_an_unknown_strategy(project):
    done = project.run("dvc", "exp", "run", "--set-param", "tune.strategy=bayes", check=False)
    assert done.returncode != 0
    assert "Parameters 'tune.bayes' are missing" in done.stdout
