"""The pipeline as a user runs it: the real scripts, the real `dvc`, real handwritten digits."""

import json
import re
import shlex
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ENVIRONMENT

from stages.training.backend import keras

ROOT = Path(__file__).parent.parent
STRATEGIES = ("hyperband", "random", "bayesian", "grid", "sklearn")
TRAINED_KEYS = [
    *("hyperparameters", "parameters", "epochs", "replicates", "train_accuracy", "train_loss"),
    *("test_accuracy", "test_loss", "kept", "seconds_per_epoch"),
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
    assert (baseline["hyperparameters"]["units"], baseline["parameters"]) == (96, 64 * 96 + 96 + 96 * 10 + 10)
    assert retrain["hyperparameters"] == tune["hyperparameters"]
    assert baseline["test_accuracy"]["mean"] > 0.7
    trials = pd.read_csv(project.folder / "metrics/plots/trials.csv").set_index("trial")
    assert tune["trials"] == len(trials) == 7
    assert tune["best"]["score"] == trials["val_accuracy"].max()
    assert tune["best"]["trial"] == trials["val_accuracy"].idxmax()
    chosen = trials[trials["chosen"] == "yes"]
    assert chosen.index.tolist() == [tune["one_standard_error"]["trial"]]
    full = trials[trials["budget"] == 4]
    top = full.loc[full["val_accuracy"].idxmax()]
    as_good = full[full["val_accuracy"] >= top["val_accuracy"] - top["standard_error"]]
    assert tune["parameters"] == as_good["parameters"].min()
    assert tune["one_standard_error"]["as_good_as_the_best"] == len(as_good)
    reached = trials[trials["epochs_to_target"].notna()]
    assert len(reached)
    assert (reached["val_accuracy"] >= 0.7).all()
    lines = pd.read_csv(project.folder / "metrics/plots/space.csv")
    assert lines["trial"].tolist() == trials.index.tolist()
    assert lines["value"].tolist() == trials["units"].tolist()
    assert set(lines["hyperparameter"]) == {"units"}
    assert lines["position"].between(0, 1).all()


def test_replicates_have_seeds_of_their_own_and_the_first_is_kept(project):
    labels = np.load(project.folder / "data/prepared/test/labels.npy")
    for name in ("baseline", "retrain"):
        trained = metrics(project, name)
        predictions = np.load(project.folder / f"data/{name}/predictions.npy")
        assert (predictions.shape, predictions.dtype) == ((3, len(labels)), np.int32)
        accuracies = (predictions == labels).mean(1)
        assert len(set(accuracies)) > 1
        assert trained["test_accuracy"] == pytest.approx({"mean": accuracies.mean(), "std": accuracies.std(ddof=1)})
        assert (trained["kept"]["replicate"], trained["kept"]["seed"]) == (1, 42)
        assert trained["kept"]["test_accuracy"] == accuracies[0]
        history = pd.read_csv(project.folder / f"metrics/plots/{name}.csv")
        assert list(history) == ["replicate", "epoch", "accuracy", "loss"]
        assert list(zip(history["replicate"], history["epoch"], strict=True)) == [(r, e) for r in (1, 2, 3) for e in (1, 2)]
        assert history[history["epoch"] == 2]["accuracy"].mean() == pytest.approx(trained["train_accuracy"]["mean"])
        network = keras.models.load_model(project.folder / f"data/{name}/model.keras")
        images = np.load(project.folder / "data/prepared/test/images.npy")
        assert (network.predict(images, verbose=0).argmax(1) == predictions[0]).all()


def test_the_comparison_is_of_both_networks(project):
    compared, baseline, retrain = (metrics(project, name) for name in ("comparison", "baseline", "retrain"))
    for name in ("parameters", "multiply_adds_per_image"):
        assert compared[name]["ratio"] == pytest.approx(compared[name]["baseline"] / compared[name]["tuned"], abs=5e-4)
    assert compared["parameters"]["tuned"] == retrain["parameters"]
    assert compared["multiply_adds_per_image"]["baseline"] == 64 * 96 + 96 * 10
    accuracy = compared["test_accuracy"]
    assert accuracy["baseline"] == pytest.approx(baseline["test_accuracy"]["mean"])
    assert accuracy["difference"] == pytest.approx(accuracy["tuned"] - accuracy["baseline"])
    assert accuracy["low"] < accuracy["difference"] < accuracy["high"]
    assert compared["verdict"] in ("non_inferior", "inferior", "inconclusive")
    assert f"comparison: {' '.join(compared['summary'])}\n" in project.output
    matrix = pd.read_csv(project.folder / "metrics/plots/confusion.csv")
    assert len(matrix) == 100
    assert matrix["images"].sum() == len(np.load(project.folder / "data/prepared/test/labels.npy"))
    right = matrix[matrix["actual"] == matrix["predicted"]]["images"].sum() / matrix["images"].sum()
    assert right == pytest.approx(retrain["kept"]["test_accuracy"])


def test_selection_best_is_kerastuners(project):
    project.dvc("exp", "run", "--set-param", "tune.selection=best")
    tune = metrics(project, "tune")
    assert (tune["hyperparameters"]["units"], tune["score"]) == (
        tune["best"]["hyperparameters"]["units"],
        tune["best"]["score"],
    )


def test_another_budget_of_epochs_is_trained_to_exactly(project):
    """The store has two epochs; one epoch starts again, three go on from two."""
    baseline = metrics(project, "baseline")
    for epochs in (1, 3):
        project.update_params({"train": {"epochs": epochs}})
        project.stage("baseline")
        trained = metrics(project, "baseline")
        assert trained["epochs"] == epochs
        assert (trained["train_accuracy"]["mean"] > baseline["train_accuracy"]["mean"]) == (epochs == 3)
        warm = project.outputs()
        project.empty_store()
        project.stage("baseline")
        assert project.outputs() == warm


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
    assert tune["best"]["score"] == trials["val_accuracy"].max()
    assert trials["standard_error"].gt(0).all()


def test_an_upgrade_makes_stale_what_uses_the_package_and_other_versions_are_refused(project):
    pyproject = project.folder / "pyproject.toml"
    pins = pyproject.read_text()
    assert "tensorflow==" in pins
    assert "tqdm==" in pins
    for name, stale in (("tqdm", set()), ("tensorflow", {"baseline", "tune", "retrain"}), ("keras-tuner[bayesian]", {"tune"})):
        pyproject.write_text(pins.replace(f'"{name}==', f'"{name}==9.'))
        assert set(json.loads(project.dvc("status", "--json"))) == stale
    pyproject.write_text(pins.replace('"tensorflow==', '"tensorflow==9.'))
    done = project.stage("baseline", check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"error: tensorflow is \S+, but pyproject.toml pins 9\.\S+; `pip install .+\n", done.stdout), (
        done.stdout
    )


def test_another_strategys_block_invalidates_nothing(project):
    assert ran(project.dvc("exp", "run", "--set-param", "tune.random.max_trials=2")) == []


def test_a_change_of_the_baseline_reruns_what_lists_it_and_the_store_makes_it_short(project):
    project.stage("tune")
    output = project.dvc("exp", "run", "--set-param", "baseline.units=32")
    assert ran(output) == ["baseline", "tune", "retrain"]
    assert re.search(r"; (\d+) epochs, \1 of them from data/trials", output)


def test_a_strategy_that_was_run_before_comes_from_the_run_cache(project):
    project.dvc("exp", "run", "--set-param", "tune.strategy=random")
    project.run("git", "reset", "--hard", "--quiet")
    output = project.dvc("exp", "run", "--set-param", "tune.strategy=random")
    assert ran(output) == []
    assert metrics(project, "tune")["strategy"] == "random"


def test_control_puts_the_baselines_units_beside_the_tuned(project):
    project.dvc("exp", "run", "--temp", "--name", "control", "--set-param", "retrain.from=baseline")
    changes = json.loads(project.dvc("metrics", "diff", "control", "--json"))["metrics/retrain.json"]
    units = metrics(project, "tune")["hyperparameters"]["units"]
    assert changes["hyperparameters.units"] == {"old": 96, "new": units, "diff": units - 96}
    assert "parameters" in changes
    baseline = metrics(project, "baseline")
    assert changes["test_accuracy.mean"]["old"] == pytest.approx(baseline["test_accuracy"]["mean"])
    compared = json.loads(project.dvc("metrics", "diff", "control", "--json"))["metrics/comparison.json"]
    assert compared["test_accuracy.low"]["old"] == compared["test_accuracy.high"]["old"] == 0
    assert "summary" not in compared  # which would make the table as wide as it is


def test_what_is_pushed_need_not_be_trained_again(project, tmp_path):
    """A folder as remote: push here, clone elsewhere, pull, and nothing is left to run."""
    project.dvc("remote", "add", "--default", "shared", str(tmp_path / "remote"))
    project.commit()
    project.dvc("push")
    subprocess.run(["git", "clone", "--quiet", str(project.folder), str(tmp_path / "clone")], check=True)
    clone = type(project)(tmp_path / "clone")
    clone.dvc("pull")
    assert ran(clone.dvc("repro")) == []
    assert clone.outputs() == project.outputs()
    clone.dvc("exp", "run", "--name", "small", "--set-param", "train.epochs=1")
    clone.run("git", "remote", "set-url", "origin", f"file://{project.folder}")
    clone.dvc("exp", "push", "origin", "small")
    assert "small" in project.dvc("exp", "list")
    project.dvc("exp", "remove", "small")
    project.run("git", "reset", "--hard", "--quiet", "HEAD~1")


def test_readmes_table_of_experiments(project):
    project.dvc("exp", "run", "--temp", "--name", "one", "--set-param", "train.epochs=1")
    command = next(
        line for line in (ROOT / "docs/experiments.md").read_text().splitlines() if line.startswith("dvc exp show --drop")
    )
    shown = project.dvc(*shlex.split(command)[1:], "--csv")
    head, *rows = [line.split(",") for line in shown.splitlines()]
    assert len(head) == 8
    assert {"verdict", "tune.strategy", "test_accuracy.low"} <= set(head)
    assert [row[0] for row in rows[:2]] == ["", ""]  # the workspace and the commit
    assert "one" in [row[0] for row in rows[2:]]
    project.dvc("exp", "remove", "one")


def test_the_model_is_registered_and_loaded_as_readme_says(project):
    project.run("gto", "register", "tuned", "--version", "v1.0.0")
    assert "v1.0.0" in project.run("gto", "show", "tuned").stdout
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs/sharing.md").read_text(), re.S)[1]
    assert len(code.strip().splitlines()) <= 5
    first = int(np.load(project.folder / "data/retrain/predictions.npy")[0, 0])
    assert project.run("python", "-c", code).stdout.splitlines()[-1] == str(first)
    project.run("git", "tag", "--delete", "tuned@v1.0.0")


def test_queued_experiments_run(project):
    project.dvc("exp", "run", "--queue", "--set-param", "tune.strategy=hyperband,bayesian,random")
    start = ["dvc", "queue", "start", "--jobs", "2"]  # its output would be held open by the workers that it leaves behind
    subprocess.run(start, cwd=project.folder, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while re.search("Queued|Running", status := project.dvc("queue", "status")) and time.monotonic() < deadline:
        time.sleep(2)
    assert len(re.findall("Success", status)) == 3, status
    project.dvc("queue", "stop")


def test_a_second_run_writes_the_same_bytes(project):
    before = project.outputs()
    project.empty_store()
    for stage in ("prepare", "baseline", "tune", "retrain"):
        project.stage(stage)
    assert project.outputs() == before


def test_tune_does_not_read_the_test_images(project):
    before = project.outputs()
    project.empty_store()
    for path in (project.folder / "data/prepared/test").iterdir():
        path.unlink()
    project.stage("tune")
    after = project.outputs()
    assert {name for name in before if name not in after} == {f"data/prepared/test/{name}.npy" for name in ("images", "labels")}
    assert after.items() <= before.items()


def test_plots_are_drawn(project):
    project.dvc("plots", "show")
    page = (project.folder / "dvc_plots/index.html").read_text()
    assert all(
        title in page
        for title in (
            "Training accuracy of both networks",
            "training loss",
            "Trials of the search",
            "Score against size",
            "What the retrained network takes for what",
        )
    )


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
        ("retrain", "data/baseline/model.keras"),
        ("retrain", "data/baseline/predictions.npy"),
    ],
)
def test_a_missing_input_is_named(project, stage, missing):
    (project.folder / missing).unlink()
    done = project.stage(stage, check=False)
    assert (done.returncode, done.stdout.count("\n")) == (1, 1)
    assert done.stdout.startswith(f"error: {missing} is missing")


def test_a_baseline_of_other_params_is_not_compared_with(project):
    project.update_params({"train": {"replicates": 4}})
    done = project.stage("retrain", check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("error: data/baseline/predictions.npy holds 3 x 360 predictions, but train.replicates and")
    assert done.stdout.count("\n") == 1


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
