"""The examples: applied as their READMEs say, they run, and come to the figures there."""

import json
import re
import shutil
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parent.parent
EXPERIMENT = "tune.strategy=sklearn", "tune.sklearn.max_trials=2", "tune.sklearn.cv=2", "tune.max_epochs=10"


@pytest.fixture(scope="module", params=["table", "regression", "images"])
def example(request, make_project, tmp_path_factory):
    """A project after the README's command, committed."""
    project = make_project(tmp_path_factory.mktemp(request.param))
    shutil.copy(ROOT / "params.yaml", project.folder)
    project.commit()
    project.name = request.param
    project.readme = (ROOT / f"examples/{request.param}/README.md").read_text()
    command = re.search(r"```sh\n(git apply .*)\n", project.readme)[1]
    project.output = project.run("sh", "-c", command).stdout
    project.commit()
    return project


def test_it_comes_to_the_figures_of_its_readme(example):
    """Within the margin: the last digits, and so the choice, depend on the processor."""
    compared = example.metrics("comparison")
    assert f"comparison: {' '.join(compared['summary'])}" in example.output
    assert (
        compared["margin"]
        == yaml.safe_load((example.folder / "params.yaml").read_text())["compare"]["margin"]
    )
    name = next(key for key in compared if key.startswith("test_"))
    cells = re.search(rf"^\| {name.replace('_', ' ')}.*? \| (\S+) .*? \| (\S+) .*? \|$", example.readme, re.M)
    figures = [float(cell) for cell in cells.groups()]
    assert figures == pytest.approx(
        [compared[name]["baseline"], compared[name]["tuned"]], abs=compared["margin"]
    )
    sentence = " ".join(example.readme.split()).partition("comparison: ")[2]
    said = float(re.search(rf"{name.replace('_', ' ')} ([-+][\d.]+) \(95 % interval", sentence)[1])
    assert said == pytest.approx(figures[1] - figures[0], abs=compared["margin"] / 10)
    prepared = example.metrics("prepare")
    assert prepared["sha256"][0]["digest"] in example.readme
    assert f"{prepared['test_examples']:,}" in example.readme
    assert example.metrics("tune")["failed_trials"] == 0
    assert len(list((ROOT / "examples" / example.name).iterdir())) == 3


def test_what_it_leaves_is_formatted_and_up_to_date(example):
    example.run("ruff", "check", ".")
    example.run("ruff", "format", "--check", ".")
    example.run("mypy")
    schema = (example.folder / "params.schema.json").read_bytes()
    example.run("python", "-m", "stages.review.schema")
    assert (example.folder / "params.schema.json").read_bytes() == schema
    assert example.dvc("status") == "Data and pipelines are up to date.\n"


def test_its_pictures_show_what_was_predicted(example):
    example.run("python", "-m", "stages.review.pictures")
    assert (example.folder / "dvc_plots/offline.html").stat().st_size > 900_000
    plots = json.loads(example.dvc("plots", "show", "--json"))
    assert not plots.get("errors")
    drawn = {"training score", *(f"metrics/plots/{name}.csv" for name in ("answer", "confusion", "space"))}
    assert drawn <= set(plots["data"])
    table = pd.read_csv(example.folder / "metrics/plots/confusion.csv")
    assert list(table) == ["actual", "predicted"] + ["examples"] * (example.name != "regression")
    assert (
        table.get("examples", pd.Series(1, table.index)).sum() == example.metrics("prepare")["test_examples"]
    )
    example.run("git", "checkout", "--quiet", ".")


@pytest.mark.parametrize("example", ["table"], indirect=True)
def test_new_rows_are_classified_as_the_documentation_says(example):
    """With the model that `retrain` kept: the prepared test examples are classified as it did."""
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs/sharing.md").read_text(), re.S)[-1]
    code += 'found = model.predict(numpy.load("data/prepared/test/inputs.npy"), verbose=0).argmax(1)\n'
    code += 'print((found == numpy.load("data/retrain/predictions.npy")[0]).all())\n'
    classes, alike = example.run("python", "-c", f"import numpy\n{code}").stdout.splitlines()[-2:]
    assert re.fullmatch(r"\[('(F|L|M|VF)'(, )?){3}\]", classes)
    assert alike == "True"


@pytest.mark.parametrize("example", ["regression"], indirect=True)
def test_an_experiment_and_its_report_where_labels_are_numbers(example):
    params = [part for change in EXPERIMENT for part in ("--set-param", change)]
    example.dvc("exp", "run", *params, "tune")
    example.run("python", "-m", "stages.review.report", "HEAD", "--output", "report")
    report = (example.folder / "report/report.md").read_text()
    assert "tune.strategy" in report
    assert " ".join(example.metrics("comparison")["summary"])[:20] in report
    assert (example.folder / "report/metrics-plots-confusion.png").stat().st_size > 10_000


def test_a_change_of_its_data_is_seen_and_what_is_wrong_is_named(example):
    """A value that is missing, or a file that is no image."""
    (path,) = (example.folder / "examples" / example.name).glob("data.*")
    before, prepared = example.files("data/prepared"), example.metrics("prepare")
    if example.name == "images":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("train/coat/broken.png", b"")
        error = r"data/raw/clothes/\w+/train/coat/broken\.png is no image \(.*\); remove it from the folder"
    else:
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0], "," + lines[1].partition(",")[2], *lines[2:]]) + "\n")
        rows = sum(prepared[f"{part}_examples"] for part in ("train", "validation", "test"))
        what = f"{path.name}: column {lines[0].partition(',')[0]} has no value in 1 of {rows} rows"
        error = f"examples/{example.name}/{what}; mend the file, or leave out the column or those rows"
    assert f"modified:           {path.relative_to(example.folder)}" in example.dvc("status", "prepare")
    done = example.stage("prepare", check=False)
    assert done.returncode == 1
    assert re.fullmatch(f"error: {error}\n", done.stdout)
    assert (example.files("data/prepared"), example.metrics("prepare")) == (before, prepared)
