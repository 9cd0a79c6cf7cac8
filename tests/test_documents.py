"""What the documents say of this repository's own run is what metrics/ has; a fork deletes this file."""

import json
import re
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.utils.class_weight import compute_sample_weight

from stages.base.splits import Split
from stages.datasets.dataset import Dataset
from stages.datasets.tables import from_tables
from stages.review.report import shown

ROOT = Path(__file__).parent.parent


def metrics(name: str) -> dict:
    return json.loads((ROOT / f"metrics/{name}.json").read_text())


def words(path: str) -> str:
    """The document in one line."""
    return " ".join((ROOT / path).read_text().split())


@pytest.mark.parametrize(
    "patch", sorted((ROOT / "examples").glob("*/fork.patch")), ids=lambda patch: patch.parent.name
)
def test_an_example_fits_what_it_changes(patch):
    subprocess.run(["git", "apply", "--check", patch], cwd=ROOT, check=True)


def test_a_table_gets_weights_and_groups_by_the_lines_of_contributing():
    """Two patients to train on and two to test on; one class is twice as frequent as the other."""
    table = pd.DataFrame({"patient": list("abababcd"), "age": range(8), "class": list("xxxxyyyx")})
    names = {"train": table[:6], "test": table[6:], "np": np, "replace": replace, "from_tables": from_tables}
    names["compute_sample_weight"] = compute_sample_weight
    document = (ROOT / "CONTRIBUTING.md").read_text()
    exec(re.findall(r"```python\n(data = .*?)```", document, re.S)[0], names)  # noqa: S102 - lines of ours
    data = names["data"]
    assert (data.train.groups.tolist(), data.test.groups.tolist()) == ([0, 1] * 3, [2, 3])
    assert data.train.weights.tolist() == pytest.approx([0.75] * 4 + [1.5] * 2)
    assert (data.train.shapes, list(data.problems())) == ((1,), [])


def test_parts_of_a_series_share_no_step_by_the_lines_of_contributing():
    names = {"np": np, "Split": Split, "Dataset": Dataset, "series": np.arange(1000, dtype=np.float32)}
    document = (ROOT / "CONTRIBUTING.md").read_text()
    exec(re.findall(r"```python\n(inputs = .*?)```", document, re.S)[0], names)  # noqa: S102 - lines of ours
    data = names["data"]
    parts = [data.train, data.validation, data.test]
    assert [(part.inputs.shape[1:], part.labels.shape[1:]) for part in parts] == [((48,), (12,))] * 3
    assert all((part.labels[:, 0] == part.inputs[:, -1] + 1).all() for part in parts)
    assert all(one.labels.max() < other.inputs.min() for one, other in pairwise(parts))
    assert list(data.problems()) == []


def test_the_readme_has_the_figures_of_the_metrics():
    """The conclusion, the last lines of the run and the table of results."""
    baseline, retrain, compared, tune = map(metrics, ("baseline", "retrain", "comparison", "tune"))
    readme, conclusion = words("README.md"), " ".join(compared["summary"])
    assert f"*{conclusion}.*" in readme
    assert f"comparison: {conclusion} " in readme
    accuracy, score = retrain["test_accuracy"], compared["test_accuracy"]
    last = f"{retrain['replicates']} trainings of {retrain['epochs']} epochs, test accuracy"
    deviation = f"(standard deviation {accuracy['std']:.4f})"
    assert f"{retrain['parameters']:,} parameters, {last} {accuracy['mean']:.4f} {deviation}" in readme
    lines = (ROOT / "README.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    table = {cells[1]: cells[2:4] for cells in rows if len(cells) == 7}
    assert table["parameters"] == [f"{trained['parameters']:,}" for trained in (baseline, retrain)]
    means = [trained["test_accuracy"] for trained in (baseline, retrain)]
    assert table["test accuracy, mean (standard deviation)"] == [
        f"{mean['mean']:.4f} ({mean['std']:.4f})" for mean in means
    ]
    interval = f"{score['difference']:+.4f} ({score['low']:+.4f} to {score['high']:+.4f})"
    assert table["difference (95 % interval)"] == ["", interval]
    share = 1 / compared["seconds_per_training"]["ratio"]
    assert table["training time, relative to the baseline"] == ["", f"{share:.1g}"]
    assert f"{tune['trials']} trials and the baseline's, {tune['epochs']} epochs" in readme
    best, before = tune["best"], tune["baseline"]
    assert f"{before['hyperparameters']['units']} units have {before['score']:.4f}" in readme
    errors = f"with standard errors of {before['standard_error']:.4f} and {best['standard_error']:.4f}"
    assert f"{best['hyperparameters']['units']} units, {best['score']:.4f}, {errors}." in readme
    units = retrain["hyperparameters"]["units"]
    assert f"{units} units are: they lose no more than {-score['low']:.4f} (95 % interval)" in readme


@pytest.mark.parametrize("document", ["README.md", "docs/review.md"])
def test_the_comment_that_is_quoted_is_that_of_the_example(document):
    report, quoted = (
        words("docs/report/report.md"),
        re.findall("^> ?(.*)", (ROOT / document).read_text(), re.M),
    )
    rows = [line for line in quoted if line.startswith("| `")]
    assert " ".join(" ".join(line for line in quoted if line[:1] != "|").split()) in report
    assert len(rows) == 5
    assert all(row in report for row in rows)


def test_the_example_of_a_report_is_of_the_committed_run():
    rows = re.findall(
        r"^\| `(\w+).json` \| `(\S+)` \| `(\S+)` \|", (ROOT / "docs/report/report.md").read_text(), re.M
    )
    compared = [(name, key, before) for name, key, before in rows if "seconds" not in key]
    assert len(compared) > 20
    for name, key, before in compared:
        value = metrics(name)
        for part in key.split("."):
            value = value[part]
        assert before == shown(value), f"{name}.json {key}"


def test_the_documents_have_the_figures_of_the_metrics():
    tune, compared, baseline = map(metrics, ("tune", "comparison", "baseline"))
    experiments, review = words("docs/experiments.md"), words("docs/review.md")
    for rule in ("tolerance", "best", "baseline"):
        found, units = tune[rule], tune[rule]["hyperparameters"]["units"]
        reached = rf"{units} units (reach )?{found['score']:.4f} at epoch {found['epoch']}\b"
        assert re.search(reached, experiments)
    score = compared["test_accuracy"]
    gained = f"units gain {score['difference']:.4f}; with other images and seeds, by the 95 % interval,"
    assert f"{gained} they lose up to {-score['low']:.4f} or gain up to {score['high']:.4f}" in experiments
    deviation = baseline["test_accuracy"]["std"]
    assert f"a standard deviation of {deviation:.4f} in test accuracy" in experiments
    assert f"`parameters.ratio` of {compared['parameters']['ratio']} means" in review


def test_the_documents_have_the_figures_of_the_experiments():
    kept = json.loads((ROOT / "docs/experiments.json").read_text())
    experiments, readme = words("docs/experiments.md"), words("README.md")
    for name in ("longer", "units_48", "dropout"):
        assert f"comparison: {' '.join(kept[name]['comparison']['summary'])} " in experiments
    tried = [trial for trial in kept["dropout"]["trials"] if trial["trial"] != "0"]
    for column in ("val_accuracy", "val_loss"):
        assert " | ".join(f"{float(trial[column]):.4f}" for trial in tried) in experiments
    fashion = kept["fashion_mnist"]
    baseline, retrain, score = fashion["baseline"], fashion["retrain"], fashion["comparison"]["test_accuracy"]
    assert f"Fashion-MNIST: {retrain['hyperparameters']['units']}, {retrain['epochs']}, tuned |" in readme
    means = [trained["test_accuracy"] for trained in (baseline, retrain)]
    assert " | ".join(f"{mean['mean']:.4f} ({mean['std']:.4f})" for mean in means) in readme
    assert f"{score['difference']:+.4f} ({score['low']:+.4f} to {score['high']:+.4f}) |" in readme


def test_the_documents_have_the_figures_of_the_trials():
    trials = pd.read_csv(ROOT / "metrics/plots/trials.csv")
    least, most = (trials[(trials.budget == 2) & (trials.units == units)].val_accuracy for units in (32, 464))
    experiments, review = words("docs/experiments.md"), words("docs/review.md")
    assert f"rises from {least.item():.3f} (32 units) to {most.item():.3f} (464)" in experiments
    small = trials[(trials.budget == 10) & (trials.units == 176)].val_accuracy.item()
    assert f"176 units at {small:.4f}" in experiments
    assert f"the search took {metrics('tune')['seconds']:.0f} s" in review
    deviation = metrics("baseline")["test_accuracy"]["std"]
    assert f"six baselines have a standard deviation of {deviation:.4f}" in review


def test_the_differences_that_are_quoted_are_of_the_metrics():
    kept = json.loads((ROOT / "docs/experiments.json").read_text())["bayesian"]
    row = r"^metrics/(\w+).json +(\S+) +([\d.]+) +([\d.]+) +-?[\d.]+$"
    rows = re.findall(row, (ROOT / "docs/experiments.md").read_text(), re.M)
    assert len(rows) >= 8
    for name, key, old, new in rows:
        tune = name == "tune"
        pair = (metrics("tune"), kept["tune"]) if tune else (metrics("baseline"), metrics("retrain"))
        for part in key.split("."):
            pair = tuple(value[part] for value in pair)
        assert (float(old), float(new)) == tuple(round(value, 5) for value in pair), key
