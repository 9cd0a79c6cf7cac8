"""The pipeline as a user runs it: the real scripts, the real `dvc`, real handwritten digits."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ran

import benchmarks.search
from stages.base import params, splits
from stages.base.console import UserError
from stages.base.splits import Split
from stages.compute import code
from stages.compute.runner import Runner, Training
from stages.compute.store import Store
from stages.training.backend import keras

ROOT = Path(__file__).parent.parent
TRAINED_KEYS = [
    *("hyperparameters", "parameters", "epochs", "replicates", "train_accuracy", "train_loss"),
    *("test_accuracy", "test_loss", "kept", "seconds_per_epoch"),
]


def test_repro_runs_all_stages_and_the_metrics_belong_together(reproduced):
    assert ran(reproduced.output) == ["prepare", "baseline", "tune", "retrain"]
    baseline, tune, retrain = (
        reproduced.metrics("baseline"),
        reproduced.metrics("tune"),
        reproduced.metrics("retrain"),
    )
    assert list(baseline) == list(retrain) == TRAINED_KEYS
    assert baseline["hyperparameters"] == params.load(reproduced.folder / "params.yaml").baseline
    assert baseline["parameters"] == 64 * 512 + 512 + 512 * 10 + 10
    assert retrain["hyperparameters"] == tune["hyperparameters"]
    assert baseline["test_accuracy"]["mean"] > 0.7
    trials = pd.read_csv(reproduced.folder / "metrics/plots/trials.csv").set_index("trial")
    assert tune["trials"] == 7
    assert trials.index.tolist() == list(range(8))
    assert trials["choice"].fillna("").str.contains("baseline").tolist() == [True, *[False] * 7]
    assert trials["parameters"][0] == tune["baseline"]["parameters"] == baseline["parameters"]
    assert tune["baseline"]["score"] == trials["val_accuracy"][0]
    assert tune["best"]["score"] == trials["val_accuracy"].max()
    assert tune["best"]["trial"] == trials["val_accuracy"].idxmax()
    chosen = trials[trials["choice"].fillna("").str.contains("chosen")]
    assert chosen.index.tolist() == [tune["tolerance"]["trial"]]
    (limit,) = trials["limit"].dropna()
    assert limit == pytest.approx(trials["val_accuracy"][trials["budget"] == 4].max() - 0.02)
    full = trials[trials["budget"] == 4]
    top = full.loc[full["val_accuracy"].idxmax()]
    for rule, worse in (("one_standard_error", top["standard_error"]), ("tolerance", 0.02)):
        as_good = full[full["val_accuracy"] >= top["val_accuracy"] - worse - 1e-12]
        assert tune[rule]["parameters"] == as_good["parameters"].min()
        assert tune[rule]["candidates"] == len(as_good)
    assert tune["parameters"] == tune["tolerance"]["parameters"]
    assert tune["epoch"] == chosen["best_epoch"].item() <= chosen["epochs"].item()
    lines = pd.read_csv(reproduced.folder / "metrics/plots/space.csv")
    assert lines["trial"].tolist() == trials.index.tolist()
    assert lines["value"].tolist() == trials["units"].tolist()
    assert lines["score"].tolist() == trials["val_accuracy"].tolist()
    assert set(lines["objective"]) == set(trials["objective"]) == {"val_accuracy"}
    assert set(lines["hyperparameter"]) == {"units"}
    assert lines["position"].between(0, 1).all()


def test_replicates_have_seeds_of_their_own_and_the_first_is_kept(reproduced):
    labels = np.load(reproduced.folder / "data/prepared/test/labels.npy")
    settings = params.load(reproduced.folder / "params.yaml")
    (seed,) = settings.seeds("final", 1)
    assert seed not in settings.seeds("search", 1000)
    for name in ("baseline", "retrain"):
        trained = reproduced.metrics(name)
        predictions = np.load(reproduced.folder / f"data/{name}/predictions.npy")
        assert (predictions.shape, predictions.dtype) == ((5, len(labels)), np.int32)
        accuracies = (predictions == labels).mean(1)
        assert (np.load(reproduced.folder / f"data/{name}/scores.npy") == (predictions == labels)).all()
        assert len(set(accuracies)) > 1
        assert trained["test_accuracy"] == pytest.approx(
            {"mean": accuracies.mean(), "std": accuracies.std(ddof=1)}
        )
        assert (trained["kept"]["replicate"], trained["kept"]["seed"]) == (1, seed)
        assert trained["kept"]["test_accuracy"] == accuracies[0]
        history = pd.read_csv(reproduced.folder / f"metrics/plots/{name}.csv")
        assert list(history) == ["replicate", "epoch", "score", "loss"]
        assert list(zip(history["replicate"], history["epoch"], strict=True)) == [
            (r, e) for r in range(1, 6) for e in (1, 2)
        ]
        assert history[history["epoch"] == 2]["score"].mean() == pytest.approx(
            trained["train_accuracy"]["mean"]
        )
        network = keras.models.load_model(reproduced.folder / f"data/{name}/model.keras")
        inputs = np.load(reproduced.folder / "data/prepared/test/inputs.npy")
        assert (network.predict(inputs, verbose=0).argmax(1) == predictions[0]).all()


def test_the_comparison_is_of_both_networks(reproduced):
    compared, baseline, retrain = (reproduced.metrics(name) for name in ("comparison", "baseline", "retrain"))
    parameters = compared["parameters"]
    assert (parameters["baseline"], parameters["tuned"]) == (baseline["parameters"], retrain["parameters"])
    assert parameters["ratio"] == pytest.approx(baseline["parameters"] / retrain["parameters"], abs=5e-4)
    accuracy = compared["test_accuracy"]
    assert accuracy["baseline"] == pytest.approx(baseline["test_accuracy"]["mean"])
    assert accuracy["difference"] == pytest.approx(accuracy["tuned"] - accuracy["baseline"])
    assert accuracy["low"] < accuracy["difference"] < accuracy["high"]
    assert compared["verdict"] in ("non_inferior", "inferior", "inconclusive")
    assert f"comparison: {' '.join(compared['summary'])}\n" in reproduced.output
    answer = pd.read_csv(reproduced.folder / "metrics/plots/answer.csv").set_index("figure")
    assert answer.loc["test_accuracy", ["value", "low", "high"]].tolist() == [
        accuracy[name] for name in ("difference", "low", "high")
    ]
    assert answer["value"]["parameters"] == pytest.approx(100 / parameters["ratio"], rel=5e-4)
    matrix = pd.read_csv(reproduced.folder / "metrics/plots/confusion.csv")
    assert len(matrix) == 100
    assert matrix["examples"].sum() == len(np.load(reproduced.folder / "data/prepared/test/labels.npy"))
    right = matrix[matrix["actual"] == matrix["predicted"]]["examples"].sum() / matrix["examples"].sum()
    assert right == pytest.approx(retrain["kept"]["test_accuracy"])


def test_the_console_is_for_people(reproduced):
    assert "absl" not in reproduced.output
    assert "oneDNN" not in reproduced.output
    assert "Warning" not in reproduced.output
    assert re.search(
        r"^tune: up to 8 trials, one of the baseline, \d\d epochs; 5 trainings in data/trials$",
        reproduced.output,
        re.M,
    )
    assert re.search(
        r"^8/8 trial \d: \w+=\d+ epochs=\d val_accuracy=0\.\d{3,4} best=0\.\d{3,4}$", reproduced.output, re.M
    )
    for stage in ("prepare", "baseline", "tune", "retrain", "comparison"):
        assert re.search(rf"^{stage}: ", reproduced.output, re.M)


def test_nothing_changed_runs_nothing(reproduced):
    assert ran(reproduced.dvc("repro")) == []


def test_plots_are_drawn(project):
    project.dvc("plots", "show")
    page = (project.folder / "dvc_plots/index.html").read_text()
    assert all(
        title in page
        for title in (
            "The answer",
            "Training score of both networks",
            "Training loss of both networks",
            "Trials of the search",
            "Score against size",
            "Predictions of the retrained network",
        )
    )


def test_the_model_is_registered_and_loaded_as_the_documentation_says(project):
    project.run("gto", "register", "tuned", "--version", "v1.0.0")
    assert "v1.0.0" in project.run("gto", "show", "tuned").stdout
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs/sharing.md").read_text(), re.S)[1]
    assert len(code.strip().splitlines()) <= 5
    first = int(np.load(project.folder / "data/retrain/predictions.npy")[0, 0])
    assert project.run("python", "-c", code).stdout.splitlines()[-1] == str(first)


def test_a_change_of_a_param_runs_the_stages_that_it_affects(project):
    original = (project.folder / "params.yaml").read_text()
    for changes, stages in [
        ({"tune": {"random": {"max_trials": 2}}, "runtime": {"workers": 1}}, set()),
        ({"compare": {"margin": 0.01}}, {"retrain"}),
        ({"tune": {"tolerance": 0.01}}, {"tune"}),
        ({"baseline": {"units": 16}}, {"baseline", "tune", "retrain"}),
        ({"prepare": {"validation_split": 0.3}}, {"prepare"}),
    ]:
        (project.folder / "params.yaml").write_text(original)
        project.update_params(changes)
        assert set(json.loads(project.dvc("status", "--json"))) == stages


def test_each_selection_takes_its_own_and_another_tolerance_trains_nothing(here, project):
    rules = ("tolerance", "one_standard_error", "best")
    for selection in rules:
        output = here("tune", {"tune": {"selection": selection}})
        assert re.search(r", (\d+) epochs, \1 of them from data/trials", output)
        tune = project.metrics("tune")
        assert tune["hyperparameters"].items() >= tune[selection]["hyperparameters"].items()
        assert tune["score"] == tune[selection]["score"]
    assert tune["tolerance"]["parameters"] <= tune["one_standard_error"]["parameters"]
    output = here("tune", {"tune": {"selection": "tolerance", "tolerance": 0.5}})
    assert re.search(r", (\d+) epochs, \1 of them from data/trials", output)
    trials = pd.read_csv(project.folder / "metrics/plots/trials.csv")
    full = trials[trials["budget"] == 4]
    assert project.metrics("tune")["parameters"] == full["parameters"].min()


def test_another_budget_of_epochs_is_trained_to_exactly(here, project):
    """The store has two epochs: a training of one epoch starts anew, one of three epochs goes on from two."""
    baseline = project.metrics("baseline")
    for epochs in (1, 3):
        here("baseline", {"train": {"epochs": epochs}})
        trained = project.metrics("baseline")
        assert trained["epochs"] == epochs
        assert (trained["train_accuracy"]["mean"] > baseline["train_accuracy"]["mean"]) == (epochs == 3)
    warm = project.outputs()
    project.empty_store()
    here("baseline")
    assert project.outputs() == warm


@pytest.mark.weekly
def test_the_benchmarks_search_is_the_pipelines(project, elsewhere, monkeypatch):
    """It starts with an empty store, whatever is in the project's."""
    monkeypatch.setattr(benchmarks.search, "ROOT", project.folder)
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", elsewhere["DASK_SCHEDULER_ADDRESS"])
    result, trials = benchmarks.search.this_project()
    metrics = project.metrics("tune")
    assert (result["trials"], result["epochs"]) == (metrics["trials"], metrics["epochs"])
    assert trials["val_accuracy"].max() == metrics["best"]["score"]
    assert (trials["seconds_per_epoch"] > 0).all()


def test_the_store_changes_no_result_and_saves_epochs(here, project):
    """Another strategy, with larger and smaller budgets, reuses stored trainings."""
    expected = project.outputs()
    assert re.search(r", (\d+) epochs, \1 of them from data/trials", here("tune"))
    assert project.outputs() == expected
    assert ", 0 of them" not in here(
        "tune", {"tune": {"strategy": "grid", "max_epochs": 5, "grid": {"max_trials": 3}}}
    )
    warm = project.outputs()
    project.empty_store()
    assert ", 0 of them" in here("tune")
    assert project.outputs() == warm


def test_early_stopping_and_val_loss_decide_from_end_to_end(here, project):
    """A trial ends when its loss has not improved for two epochs; it is scored at the lowest loss."""
    rates = {"type": "choice", "values": [0.001, 0.3]}
    changes = {
        "strategy": "grid",
        "max_epochs": 12,
        "objective": "val_loss",
        "selection": "best",
        "grid": {"max_trials": None},
    }
    changes |= {"early_stopping": {"monitor": "val_loss", "patience": 2}, "space": {"learning_rate": rates}}
    here("tune", {"tune": changes})
    trials = pd.read_csv(project.folder / "metrics/plots/trials.csv").drop_duplicates("learning_rate")
    trials = trials.set_index("learning_rate")  # one of the two is the baseline's trial
    assert trials.loc[0.001, "epochs"] == 12 < trials.loc[0.001, "best_epoch"] + 2
    assert trials.loc[0.3, "epochs"] == trials.loc[0.3, "best_epoch"] + 2 < 12
    assert project.metrics("tune")["hyperparameters"]["learning_rate"] == trials["val_loss"].idxmin()
    assert project.metrics("tune")["score"] == trials["val_loss"].min()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"objective": "val_f1"}, r"tune.objective in params.yaml is val_f1, but NAME in .+"),
        (
            {
                "max_epochs": 10,
                "hyperband": {"factor": 3},
                "space": {"dropout": {"type": "choice", "values": [0.1, 0.2, 0.3]}},
            },
            r"params.yaml: tune.space is too small for hyperband: it would try 3 networks, none of them "
            r"for tune.max_epochs \(10\); use .* grid.+",
        ),
    ],
)
def test_settings_that_allow_no_search_are_refused(here, changes, line):
    with pytest.raises(UserError, match=f"^{line}$"):
        here("tune", {"tune": changes})


def test_retrain_trains_as_long_as_it_is_told(here, project):
    """`best` is the epoch at which the search scored the chosen trial."""
    best = project.metrics("tune")["epoch"]
    for epochs, trained in (("best", best), (1, 1), (None, 2)):
        here("retrain", {"retrain": {"epochs": epochs}})
        assert project.metrics("retrain")["epochs"] == trained
        assert project.metrics("comparison")["epochs"] == {"baseline": 2, "tuned": trained}
    here("retrain", {"retrain": {"from": "baseline", "epochs": "best"}})
    assert project.metrics("retrain")["epochs"] == 2


def test_a_store_that_fails_during_a_search_is_one_line(here, project, monkeypatch):
    """A bucket may fail. Errors of the file system are tested in test_store.py."""
    before = project.outputs()

    def load(*_, **__):
        raise UserError("params.yaml: runtime.store s3://bucket cannot be used (Timeout)")

    monkeypatch.setattr(Store, "load", load)
    with pytest.raises(
        UserError, match=r"^params.yaml: runtime.store s3://bucket cannot be used \(Timeout\)$"
    ):
        here("tune")
    assert project.outputs() == before


def test_the_stores_key_depends_on_all_that_decides_and_on_nothing_else(project, client, monkeypatch):
    """The store is read by this key, so after any such change it has no training."""
    monkeypatch.chdir(project.folder)
    settings, whole = params.load(), splits.load(Path("data/prepared/training"))
    split = Split(np.array(whole.inputs), np.array(whole.labels))
    hyperparameters, rows = settings.baseline, (np.arange(50), np.arange(50, 60))
    stops = settings.tune.early_stopping.model_dump()

    def key(*, changed=None, seed=1, data=split, subset=rows, changes=None, early_stopping=stops) -> str:
        project.update_params(changes or {})
        splits.save(splits.TRAINING, (data, np.arange(len(data.labels))))
        with Runner(client, params.load(), {"name": subset}, early_stopping=early_stopping) as runner:
            return runner.key(Training({**hyperparameters, **(changed or {})}, seed, "name"), 2)

    keys = [key(), key(changes={"runtime": {"workers": 1, "store_gigabytes": 2}})]
    assert keys[0] == keys[1]
    inputs, labels = split.inputs.copy(), split.labels.copy()
    inputs[-1, 0, 0] += 1
    labels[-1] = (labels[-1] + 1) % 10
    keys += [key(changed={name: value * 2}) for name, value in hyperparameters.items()]
    keys += [key(seed=2), key(data=Split(inputs, split.labels)), key(data=Split(split.inputs, labels))]
    keys.append(key(data=Split(split.inputs, split.labels, np.ones(len(labels)))))
    keys += [
        key(subset=(np.arange(51), rows[1])),
        key(subset=(rows[0], np.arange(50, 61))),
        key(early_stopping=None),
    ]
    keys += [key(early_stopping={"monitor": "val_loss", "patience": 6})]
    keys += [key(early_stopping={"monitor": "loss", "patience": 5})]
    with Runner(client, params.load(), {"name": rows}) as runner:
        training, decides = Training(hyperparameters, 1, "name"), runner._decides
        assert runner.key(training, 2) == runner.key(training, 3)
        runner._takes_epochs = True  # as a schedule of the learning rate does
        keys += [runner.key(training, 2), runner.key(training, 3)]
        runner._max_epochs = 10
        keys.append(runner.key(training, 2))
        assert runner.key(training, 3) == keys[-1]
        runner._takes_epochs = False
        for name in decides["environment"]:
            runner._decides = {**decides, "environment": {**decides["environment"], name: "another"}}
            keys.append(runner.key(training, 2))
        files = code.training_code()
        for name in files:
            runner._decides = {**decides, "code": code.digest({**files, name: files[name] + b"#"})}
            keys.append(runner.key(training, 2))
    assert len(set(keys)) == len(keys) - 1
    assert len(keys) > 20


def test_an_editors_files_are_not_in_the_stores_key(project):
    before = code.training_code()
    for name in (
        ".model.py.swp",
        "model.py~",
        ".ipynb_checkpoints/model.py",
        "__pycache__/model.cpython-311.pyc",
    ):
        path = project.folder / "stages/training" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"anything")
    assert code.training_code() == before
    (project.folder / "stages/training/table.csv").write_bytes(b"what model.py reads")
    assert code.training_code() != before


@pytest.mark.parametrize("imports", ["model", "score", "trainer", "network", "evaluation"])
def test_what_decides_a_training_is_in_the_key_and_a_dependency_of_the_stages(project, imports):
    """If dvc.yaml lacks it, or the code cannot be read, one line says so."""
    file = project.folder / f"stages/training/{imports}.py"
    file.write_text(file.read_text() + "\ndef later():\n    from stages.base import gain\n")
    gain = project.folder / "stages/base/gain.py"
    gain.write_text("GAIN = 1\n")
    before = code.training_code()
    assert {"stages/base/gain.py", "stages/base/splits.py"} <= before.keys()
    gain.write_text("GAIN = 2\n")
    assert code.training_code() != before
    file.write_text(file.read_text() + "\nfrom own import gain\n")
    (project.folder / "own").mkdir()
    (project.folder / "own/gain.py").write_text("GAIN = 1\n")
    with pytest.raises(UserError, match=r"imports from a folder without __init__\.py; add an empty one$"):
        code.training_code()
    (project.folder / "own/__init__.py").touch()
    line = r"^own/\S+.py determines the result of a training, but baseline in dvc.yaml does not"
    with pytest.raises(UserError, match=line + " depend on it; move it .+$"):
        code.training_code()
    file.write_text("def build(:\n")
    with pytest.raises(UserError, match=rf"^stages/training/{imports}.py is not valid Python: .+, line 1$"):
        code.training_code()


def test_a_second_run_writes_the_same_bytes_and_tune_reads_no_test_images(here, project, tmp_path):
    before = project.outputs()
    project.empty_store()
    test = project.folder / "data/prepared/test"
    test.rename(tmp_path / "test")
    here("tune")
    after = project.outputs()
    assert {name for name in before if name not in after} == {
        f"data/prepared/test/{name}.npy" for name in ("inputs", "labels")
    }
    assert after.items() <= before.items()
    project.empty_store()
    for stage in ("prepare", "baseline", "retrain"):
        here(stage)
    assert project.outputs() == before


def test_an_upgrade_makes_stale_what_uses_the_package_and_other_versions_are_refused(project):
    pyproject = project.folder / "pyproject.toml"
    pins = pyproject.read_text()
    assert "tensorflow==" in pins
    assert "tqdm==" in pins
    for name, stale in (
        ("tqdm", set()),
        ("tensorflow", {"baseline", "tune", "retrain"}),
        ("keras-tuner[bayesian]", {"tune"}),
    ):
        pyproject.write_text(pins.replace(f'"{name}==', f'"{name}==9.'))
        assert set(json.loads(project.dvc("status", "--json"))) == stale
    pyproject.write_text(pins.replace('"tensorflow==', '"tensorflow==9.'))
    done = project.stage("baseline", check=False)
    assert done.returncode == 1
    assert re.fullmatch(
        r"error: tensorflow is \S+, but pyproject.toml pins 9\.\S+; `pip install .+\n", done.stdout
    ), done.stdout


def test_the_control_compares_the_baseline_with_itself(here, project):
    here("retrain", {"retrain": {"from": "baseline"}})
    diff = json.loads(project.dvc("metrics", "diff", "--json"))
    tuned, baseline = project.metrics("tune"), project.metrics("baseline")
    changes = diff["metrics/retrain.json"]
    old, new = tuned["hyperparameters"]["units"], baseline["hyperparameters"]["units"]
    assert changes["hyperparameters.units"] == {"old": old, "new": new, "diff": new - old}
    assert "parameters" in changes
    assert changes["test_accuracy.mean"]["new"] == pytest.approx(baseline["test_accuracy"]["mean"])
    compared = diff["metrics/comparison.json"]
    assert compared["test_accuracy.low"]["new"] == compared["test_accuracy.high"]["new"] == 0
    assert "summary" not in compared  # it would make the table very wide


def test_what_is_pushed_need_not_be_trained_again(project, tmp_path):
    """With a folder as remote: push here, clone elsewhere, pull, and nothing is left to run."""
    project.dvc("remote", "add", "--default", "--force", "shared", str(tmp_path / "remote"))
    project.commit()
    project.dvc("push")
    subprocess.run(["git", "clone", "--quiet", str(project.folder), str(tmp_path / "clone")], check=True)
    clone = type(project)(tmp_path / "clone")
    clone.dvc("pull")
    assert ran(clone.dvc("repro")) == []
    assert clone.outputs() == project.outputs()
    clone.dvc("exp", "run", "--name", "small", "--set-param", "prepare.validation_split=0.3", "prepare")
    clone.run("git", "remote", "set-url", "origin", f"file://{project.folder}")
    clone.dvc("exp", "push", "origin", "small")
    assert "small" in project.dvc("exp", "list")


def test_a_bad_param_stops_every_stage_before_it_writes(here, project):
    project.update_params({"tune": {"strategy": "bayes"}})
    before = project.outputs()
    allowed = "'hyperband', 'random', 'bayesian', 'grid' or 'sklearn'"
    line = f"params.yaml: tune.strategy is bayes, but should be {allowed}"
    for stage in ("prepare", "baseline", "tune", "retrain"):
        with pytest.raises(UserError, match=f"^{line}$"):
            here(stage)
    done = project.stage("retrain", check=False)
    assert (done.returncode, done.stdout) == (1, f"error: {line}\n")
    assert project.outputs() == before


@pytest.mark.parametrize(
    ("stage", "damaged", "said"),
    [
        (
            "baseline",
            "data/prepared/training/labels.npy",
            "data/prepared/training is damaged .*`dvc repro prepare` makes it again",
        ),
        (
            "retrain",
            "data/baseline/scores.npy",
            "data/baseline/scores.npy is missing or damaged; `dvc repro baseline` .*",
        ),
    ],
)
def test_a_damaged_input_is_named(here, project, stage, damaged, said):
    for content in (b"", b"no array"):
        (project.folder / damaged).write_bytes(content)
        with pytest.raises(UserError, match=f"^{said}$"):
            here(stage)


@pytest.mark.parametrize(
    ("stage", "missing"),
    [
        ("baseline", "data/prepared/training/inputs.npy"),
        ("tune", "data/prepared/training/about.json"),
        ("retrain", "data/tune/network.json"),
        ("retrain", "data/baseline/network.json"),
        ("retrain", "data/baseline/scores.npy"),
    ],
)
def test_a_missing_input_is_named(here, project, stage, missing):
    (project.folder / missing).unlink()
    with pytest.raises(UserError, match=rf"^{missing} is missing.*$"):
        here(stage)


def test_a_baseline_of_other_params_is_not_compared_with(here):
    with pytest.raises(
        UserError, match=r"^data/baseline/scores.npy holds 5 x 360 scores, but train.replicates and .*$"
    ):
        here("retrain", {"train": {"replicates": 6}})
    line = (
        r"^data/baseline was trained with .+, train.epochs 2, seed 42, but .+, train.epochs 3, seed 42; .+$"
    )
    with pytest.raises(UserError, match=line):
        here("retrain", {"train": {"replicates": 5, "epochs": 3}})
    with pytest.raises(UserError, match=r"^data/baseline was trained with .+, seed 42, but .+, seed 43; .+$"):
        here("retrain", {"train": {"epochs": 2}, "seed": 43})
    line = r"^data/baseline was trained with units 512, .+, but params.yaml has units 64, .+$"
    with pytest.raises(UserError, match=line):
        here("retrain", {"seed": 42, "baseline": {"units": 64}})


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
