"""The examples, applied as their READMEs say, with a tiny budget or, once a week, with their own budget."""

import json
import re
import shutil
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parent.parent
EXAMPLES = ["table", "regression", "images"]
TINY = {
    "train": {"epochs": 1, "replicates": 5},
    "tune": {"strategy": "random", "max_epochs": 2, "random": {"max_trials": 2}},
}
EXPERIMENT = "tune.strategy=sklearn", "tune.sklearn.max_trials=2", "tune.sklearn.cv=2"


def command(name: str) -> str:
    """The command in the example's README."""
    readme = (ROOT / f"examples/{name}/README.md").read_text()
    return re.search(r"```sh\n(git apply .*)\n", readme)[1]


@pytest.fixture(scope="module", params=EXAMPLES)
def example(request, make_project, tmp_path_factory, elsewhere):
    """A project with the example and a tiny budget, its data prepared and committed."""
    project = make_project(tmp_path_factory.mktemp(request.param), unchanged=True)
    project.name = request.param
    if (ROOT / ".mypy_cache").exists():  # so that mypy need not read the packages again
        shutil.copytree(ROOT / ".mypy_cache", project.folder / ".mypy_cache")
    project.run("sh", "-c", command(project.name).replace("dvc repro", "true"))
    project.update_params(TINY)
    project.environment |= elsewhere
    project.dvc("repro", "prepare")
    project.commit()
    return project


@pytest.fixture(scope="module")
def whole(example):
    """The same project after `dvc repro`."""
    example.dvc("repro")
    assert example.metrics("tune")["failed_trials"] == 0
    assert example.dvc("status") == "Data and pipelines are up to date.\n"
    example.commit()
    return example


OTHERS = [pytest.param(name, marks=pytest.mark.weekly) for name in ("table", "images")]


@pytest.mark.weekly
@pytest.mark.parametrize("name", EXAMPLES)
def test_its_figures_are_those_of_its_readme(make_project, tmp_path, name):
    """They agree within the margin: the last digits, and so the choice, depend on the processor."""
    project = make_project(tmp_path, unchanged=True)
    readme = (ROOT / f"examples/{name}/README.md").read_text()
    output = project.run("sh", "-c", command(name)).stdout
    compared = project.metrics("comparison")
    assert f"comparison: {' '.join(compared['summary'])}" in output
    assert (
        compared["margin"]
        == yaml.safe_load((project.folder / "params.yaml").read_text())["compare"]["margin"]
    )
    score = next(key for key in compared if key.startswith("test_"))
    words = score.replace("_", " ")
    cells = re.search(rf"^\| {words}.*? \| (\S+) .*? \| (\S+) .*? \|$", readme, re.M)
    figures = [float(cell) for cell in cells.groups()]
    found = [compared[score]["baseline"], compared[score]["tuned"]]
    assert figures == pytest.approx(found, abs=compared["margin"])
    sentence = " ".join(readme.split()).partition("comparison: ")[2]
    said = float(re.search(rf"{words} ([-+][\d.]+) \(95 % interval", sentence)[1])
    assert said == pytest.approx(figures[1] - figures[0], abs=compared["margin"] / 10)
    assert project.metrics("tune")["failed_trials"] == 0


def test_its_data_is_what_its_readme_says(example):
    prepared, folder = example.metrics("prepare"), ROOT / "examples" / example.name
    readme = (folder / "README.md").read_text()
    assert prepared["sha256"][0]["digest"] in readme
    assert f"{prepared['test_examples']:,}" in readme
    assert len(list(folder.iterdir())) == 3


def test_what_it_leaves_is_formatted_and_passes_the_checks(example):
    example.run("ruff", "check", ".")
    example.run("ruff", "format", "--check", ".")
    example.run("mypy")
    schema = (example.folder / "params.schema.json").read_bytes()
    example.run("python", "-m", "stages.review.schema")
    assert (example.folder / "params.schema.json").read_bytes() == schema


@pytest.mark.parametrize("example", ["regression", *OTHERS], indirect=True)
def test_its_pictures_show_what_was_predicted(example, whole):
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


@pytest.mark.parametrize("example", OTHERS[:1], indirect=True)
def test_new_rows_are_classified_as_the_documentation_says(example, whole):
    """The model that `retrain` kept predicts the same for the prepared test examples as in `retrain`."""
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs/sharing.md").read_text(), re.S)[-1]
    code += 'found = model.predict(numpy.load("data/prepared/test/inputs.npy"), verbose=0).argmax(1)\n'
    code += 'print((found == numpy.load("data/retrain/predictions.npy")[0]).all())\n'
    classes, alike = example.run("python", "-c", f"import numpy\n{code}").stdout.splitlines()[-2:]
    assert re.fullmatch(r"\[('(F|L|M|VF)'(, )?){3}\]", classes)
    assert alike == "True"


@pytest.mark.parametrize("example", ["regression"], indirect=True)
def test_an_experiment_and_its_report_where_labels_are_numbers(example, whole):
    params = [part for change in EXPERIMENT for part in ("--set-param", change)]
    example.dvc("exp", "run", *params, "tune")
    example.run("python", "-m", "stages.review.report", "HEAD", "--output", "report")
    report = (example.folder / "report/report.md").read_text()
    assert "tune.strategy" in report
    assert " ".join(example.metrics("comparison")["summary"])[:20] in report
    assert (example.folder / "report/metrics-plots-confusion.png").stat().st_size > 10_000


def test_a_change_of_its_data_is_seen_and_what_is_wrong_is_named(example):
    """A value that is missing, or a file that is not an image."""
    (path,) = (example.folder / "examples" / example.name).glob("data.*")
    before, prepared = example.files("data/prepared"), example.metrics("prepare")
    if example.name == "images":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("train/coat/broken.png", b"")
        broken = r"data/raw/clothes/\w+/train/coat/broken\.png"
        error = rf"{broken} is not an image \(.*\); remove it from the folder"
    else:
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0], "," + lines[1].partition(",")[2], *lines[2:]]) + "\n")
        rows = sum(prepared[f"{part}_examples"] for part in ("train", "validation", "test"))
        what = f"{path.name}: column {lines[0].partition(',')[0]} has no value in 1 of {rows} rows"
        error = f"examples/{example.name}/{what}; fix the file, or leave out the column or those rows"
    assert f"modified:           {path.relative_to(example.folder)}" in example.dvc("status", "prepare")
    done = example.stage("prepare", check=False)
    assert done.returncode == 1
    assert re.fullmatch(f"error: {error}\n", done.stdout)
    assert (example.files("data/prepared"), example.metrics("prepare")) == (before, prepared)
