"""What the documents say of this repository's own run is what metrics/ has; a fork deletes this file."""

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "patch", sorted((ROOT / "examples").glob("*/fork.patch")), ids=lambda patch: patch.parent.name
)
def test_an_example_fits_what_it_changes(patch):
    subprocess.run(["git", "apply", "--check", patch], cwd=ROOT, check=True)


def test_the_readme_has_the_figures_of_the_metrics():
    """The conclusion, the last lines of the run and the table of results."""
    baseline, retrain, compared = (
        json.loads((ROOT / f"metrics/{name}.json").read_text())
        for name in ("baseline", "retrain", "comparison")
    )
    readme = " ".join((ROOT / "README.md").read_text().split())
    conclusion = " ".join(compared["summary"])
    assert f"*{conclusion}.*" in readme
    assert f"comparison: {conclusion} " in readme
    accuracy = retrain["test_accuracy"]
    last = f"5 trainings, test accuracy {accuracy['mean']:.4f} (standard deviation {accuracy['std']:.4f})"
    assert f"{retrain['parameters']:,} parameters, {last}" in readme
    rows = [
        [cell.strip() for cell in line.split("|")] for line in (ROOT / "README.md").read_text().splitlines()
    ]
    table = {cells[1]: cells[2:4] for cells in rows if len(cells) == 7}
    assert table["parameters"] == [f"{trained['parameters']:,}" for trained in (baseline, retrain)]
    means = [trained["test_accuracy"] for trained in (baseline, retrain)]
    assert table["test accuracy, mean (standard deviation)"] == [
        f"{m['mean']:.4f} ({m['std']:.4f})" for m in means
    ]
    difference = compared["test_accuracy"]
    interval = f"{difference['difference']:+.4f} ({difference['low']:+.4f} to {difference['high']:+.4f})"
    assert table["difference (95 % interval)"] == ["", interval]
    assert table["speed of an epoch, one core"] == ["", f"{compared['seconds_per_epoch']['ratio']:.1f} times"]
    tune = json.loads((ROOT / "metrics/tune.json").read_text())
    assert f"{tune['trials']} trials, {tune['epochs']} epochs" in readme
    assert f"below the best, which has {tune['best']['hyperparameters']['units']} units" in readme
    units, low, high = retrain["hyperparameters"]["units"], -difference["high"], -difference["low"]
    assert f"{units} units lose {low:.4f} to {high:.4f}" in readme
    many, one = (compared[f"milliseconds_per_{name}"]["ratio"] for name in ("1000_predictions", "prediction"))
    assert (
        f"{many:.1f} times the speed for 1,000 predictions at once ({one:.1f} times for a single one)"
        in readme
    )


def test_the_documents_have_the_figures_of_the_metrics():
    tune, compared = (
        json.loads((ROOT / f"metrics/{name}.json").read_text()) for name in ("tune", "comparison")
    )
    experiments, review = (
        " ".join((ROOT / f"docs/{name}.md").read_text().split()) for name in ("experiments", "review")
    )
    for rule in ("tolerance", "best"):
        found, units = tune[rule], tune[rule]["hyperparameters"]["units"]
        reached = rf"{units} units (reach )?{found['score']:.4f} at epoch {found['epoch']}\b"
        assert re.search(reached, experiments)
    accuracy = compared["test_accuracy"]
    lost = f"units lose {-accuracy['difference']:.4f}; with others, by the 95 % interval, "
    assert f"{lost}{-accuracy['high']:.4f} to {-accuracy['low']:.4f}" in experiments
    baseline = json.loads((ROOT / "metrics/baseline.json").read_text())["test_accuracy"]
    assert f"a standard deviation of {baseline['std']:.4f} in test accuracy" in experiments
    assert f"`parameters.ratio` of {compared['parameters']['ratio']} means" in review
