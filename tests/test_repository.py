"""The repository's promises: dvc.yaml names what scripts import, dvc.lock and metrics belong to the code."""

import ast
import re
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from dvc.utils.serialize import modify_yaml

from stages.compute.code import imported
from stages.review.commands import out_of_date

ROOT = Path(__file__).parent.parent
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES = ("prepare", "baseline", "tune", "retrain")


def test_the_pipeline_is_the_four_stages():
    assert tuple(PIPELINE["stages"]) == STAGES
    assert [stage["cmd"] for stage in PIPELINE["stages"].values()] == [
        f"python -m stages.{name}" for name in STAGES
    ]


def places(files) -> set[str]:
    """The folders of stages/ that `files` are in; for a stage's script, the script."""
    return {file if Path(file).parent == Path("stages") else "/".join(file.split("/")[:2]) for file in files}


def reached(stage: str) -> dict[str, bytes]:
    """The files a stage imports, here or on a worker: there, modules whose names are texts in other files."""
    files, names = {}, {f"stages.{stage}"}
    while names:
        found = imported(names.pop())
        texts = re.findall(
            rb'"(stages(?:\.\w+)+)"', b"".join(found[path] for path in found.keys() - files.keys())
        )
        names |= {text.decode() for text in texts}
        files |= found
    return files


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_the_folders_that_it_imports_from(stage):
    deps = {dep for dep in PIPELINE["stages"][stage]["deps"] if dep.startswith("stages/")}
    assert deps == places(reached(stage)) - {"stages/__init__.py"}


def test_retrain_depends_on_the_files_of_other_stages_whose_paths_stand_in_its_code():
    own = PIPELINE["stages"]["retrain"]
    made = {out for name in STAGES for out in PIPELINE["stages"][name]["outs"]} - set(own["outs"])
    text = b"".join(reached("retrain").values()).decode()
    read = made & set(re.findall(r'"(data/[\w/.]+)"', text))
    assert read
    assert read <= set(own["deps"])


def test_imports_are_those_of_the_table_in_the_documentation():
    """Each folder imports from the folders that docs/architecture.md allows, and no stage from another."""
    text = (ROOT / "docs/architecture.md").read_text()
    rows = text.partition("| folder | may import |")[2].split("\n\n")[0].splitlines()[2:]
    table = {
        cells[1].strip(" `"): set(re.findall(r"`(\w+)`", cells[2]))
        for cells in (row.split("|") for row in rows)
    }
    folders = {
        path.name for path in (ROOT / "stages").iterdir() if path.is_dir() and path.name != "__pycache__"
    }
    assert set(table) == folders | {"stages"}
    found = {folder: set() for folder in table}
    for file in (ROOT / "stages").rglob("*.py"):
        parts = file.relative_to(ROOT / "stages").parts
        folder = parts[0] if len(parts) > 1 else "stages"
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = (
                    [f"{node.module}.{alias.name}" for alias in node.names]
                    if node.module == "stages"
                    else [node.module]
                )
            found[folder] |= {name.split(".")[1] for name in names if name.startswith("stages.")} - {folder}
    assert all(found[folder] <= table[folder] for folder in table), found
    assert "review" not in table["stages"]


def test_the_file_that_no_stage_depends_on_only_says_what_went_wrong():
    nodes = list(ast.walk(ast.parse((ROOT / "stages/__init__.py").read_text())))
    imports = [ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports == ["import sys"]
    assigned = [ast.unparse(node.targets[0]) for node in nodes if isinstance(node, ast.Assign)]
    assert set(assigned) <= {"sys.excepthook", "advice"}


GROUPS = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]


@pytest.mark.parametrize(
    ("group", "lock"),
    [("run", "requirements.txt"), ("dev", "requirements-dev.txt"), ("installer", "requirements-uv.txt")],
)
def test_the_locks_hold_the_direct_packages_in_their_versions(group, lock):
    """And no other direct packages; every package has hashes."""

    def direct(group: str) -> set[str]:
        pins = (direct(pin["include-group"]) if isinstance(pin, dict) else {pin} for pin in GROUPS[group])
        return set().union(*pins)

    entries = re.split(r"\n(?=\S)", (ROOT / lock).read_text().partition("\n")[2])[1:]
    assert all("--hash=sha256:" in entry for entry in entries)
    locked = {entry.split()[0] for entry in entries if f"(pyproject.toml:{group})" in entry}
    assert locked == {re.sub(r"\[.*\]", "", pin) for pin in direct(group)}, (
        "write the locks again: see pyproject.toml"
    )


def test_stages_depend_on_the_packages_that_can_change_their_figures():
    groups = GROUPS
    listed = {
        stage: {
            key.partition(".")[2]
            for param in PIPELINE["stages"][stage]["params"]
            if isinstance(param, dict)
            for key in param["pyproject.toml"]
        }
        for stage in STAGES
    }
    used = {stage: set() for stage in STAGES}
    packages = {
        re.split(r"[\[=]", pin)[0]: group
        for group in ("numerics", "training", "search")
        for pin in groups[group]
    }
    modules = {
        package.replace("scikit-learn", "sklearn").replace("-", "_"): group
        for package, group in packages.items()
    }
    for stage in STAGES:
        for file in reached(stage):
            for node in ast.walk(ast.parse((ROOT / file).read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) else []
                used[stage] |= {
                    modules[name.split(".")[0]] for name in names if name.split(".")[0] in modules
                }
    assert listed == used
    checked = {
        stage: re.search(r"packages.check\((.*)\)", (ROOT / f"stages/{stage}.py").read_text())[1]
        for stage in STAGES
    }
    assert {stage: set(re.findall(r"\w+", groups)) for stage, groups in checked.items()} == used


def test_tune_does_not_depend_on_the_test_images():
    assert not any("test" in dep for dep in PIPELINE["stages"]["tune"]["deps"])


def test_dvc_lock_and_metrics_belong_to_the_code_and_params(monkeypatch):
    """What DVC itself finds changed; data that is missing, as in a fresh clone, is no change."""
    monkeypatch.chdir(ROOT)
    assert out_of_date() == "", "and commit dvc.lock and metrics/"


def test_kubernetes_accepts_the_manifest():
    """By its own schema, in which no field may be that it does not know; all names the pods use are made."""
    text = (ROOT / "docs/kubernetes.yaml").read_text()
    resources = list(yaml.safe_load_all(text))
    for resource in resources:
        kubernetes_validate.validate(resource, "1.37", strict=True)
    made = {resource["metadata"]["name"] for resource in resources}
    made |= set(
        re.findall(
            r"kubectl create (?:secret generic|configmap) (\S+)", (ROOT / "docs/cluster.md").read_text()
        )
    )
    used = set(re.findall(r"(?:configMapRef|configMap|secret): {name: ([\w-]+)}", text))
    assert used
    assert used <= made


def test_an_experiment_changes_one_line_of_params_yaml(tmp_path):
    """It is written as DVC writes it, so that a diff shows what was changed and no more."""
    before = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(before)
    with modify_yaml(str(tmp_path / "params.yaml")) as settings:
        settings["seed"] += 1
        changed = f"seed: {settings['seed']}"
    after = (tmp_path / "params.yaml").read_text()
    lines = zip(before.splitlines(), after.splitlines(), strict=True)
    assert [new.split("#")[0].strip() for old, new in lines if old != new] == [changed]
