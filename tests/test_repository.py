"""The repository keeps its promises: dvc.yaml names what the scripts import, dvc.lock and metrics belong to the code."""

import ast
from pathlib import Path

import pytest
import yaml

from stages import params
from stages.report import stale_stages

ROOT = Path(__file__).parent.parent
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES = ("prepare", "baseline", "tune", "retrain")


def module_file(name: str) -> Path | None:
    """The file of a module of this repository, None for any other module."""
    path = ROOT / name.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def imported_modules(file: Path) -> set[str]:
    """All names that the import statements in `file`, also those inside functions, may mean as modules."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files_behind(module: str) -> set[str]:
    """The files of this repository that importing `module` runs, by path."""
    found, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        file = module_file(name)
        if file and file not in found:
            found.add(file)
            waiting += imported_modules(file)
            waiting += [name.rpartition(".")[0]]  # the package's __init__.py
    return {str(file.relative_to(ROOT)) for file in found}


def test_the_pipeline_is_the_four_stages():
    assert tuple(PIPELINE["stages"]) == STAGES
    assert [stage["cmd"] for stage in PIPELINE["stages"].values()] == [f"python -m stages.{name}" for name in STAGES]


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_exactly_what_the_script_imports(stage):
    deps = [dep for dep in PIPELINE["stages"][stage]["deps"] if dep.startswith("stages/")]
    assert deps == sorted(files_behind(f"stages.{stage}"))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_imports_no_other_stage(stage):
    others = {f"stages/{other}.py" for other in STAGES if other != stage}
    assert not others & files_behind(f"stages.{stage}")


def test_tune_depends_on_each_hyperparameter_that_is_not_in_the_space():
    settings = params.load(ROOT / "params.yaml")
    fixed = {f"baseline.{name}" for name in params.Hyperparameters.model_fields if name not in settings.tune.space}
    missing = fixed - set(PIPELINE["stages"]["tune"]["params"])
    assert not missing, f"add to the params of tune in dvc.yaml: {missing}"


def test_tune_does_not_depend_on_the_test_images():
    assert not any("test" in dep for dep in PIPELINE["stages"]["tune"]["deps"])


def test_dvc_lock_and_metrics_belong_to_the_code_and_params(monkeypatch):
    """What DVC itself finds changed; data that is missing, as in a fresh clone, is no change."""
    monkeypatch.chdir(ROOT)
    assert not stale_stages(), "run `dvc repro` and commit dvc.lock and metrics/"


def test_requirements_are_exact():
    for name in ("requirements.txt", "requirements-dev.txt"):
        for line in (ROOT / name).read_text().splitlines():
            assert "==" in line or line == "-r requirements.txt"
