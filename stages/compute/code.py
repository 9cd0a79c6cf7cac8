"""Which code decides what a training comes to, found by its imports: it names stored trainings and is sent to the workers."""

import ast
import re
from importlib.util import resolve_name
from pathlib import Path

import yaml

import stages
from stages.base.console import UserError

ROOT = Path(stages.__path__[0]).parent
TRAINING = Path("stages/training")


def training_code() -> dict[str, bytes]:
    """Return the files of stages/training (no hidden ones) and those that its model.py and score.py import, by path.

    Raises:
        UserError: a stage that depends on stages/training does not depend on one of them.
    """
    ignored = re.compile(r"__pycache__|\..*|.*~")
    paths = (path for path in (ROOT / TRAINING).rglob("*") if path.is_file())
    whole = (path for path in paths if not any(map(ignored.fullmatch, path.relative_to(ROOT).parts)))
    found = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in whole}
    found |= imported("stages.training.model") | imported("stages.training.score")
    for stage, entry in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        deps = [str(dep) for dep in entry.get("deps", [])]
        for path in found if TRAINING.as_posix() in deps else ():
            if path != "stages/__init__.py" and not any(Path(path).is_relative_to(dep) for dep in deps):
                mend = f"move it into {TRAINING}, or add it to the deps of the stages that train"
                raise UserError(
                    f"{path} decides what a training comes to, but {stage} in dvc.yaml does not depend on it; {mend}"
                )
    return found


def imported(module: str) -> dict[str, bytes]:
    """Return the files of the repository that importing `module` can read, also imports inside functions, by path."""
    found, waiting = {}, [module]
    while waiting:
        name = waiting.pop()
        path = ROOT / name.replace(".", "/")
        file = next((file for file in (path / "__init__.py", path.with_suffix(".py")) if name and file.is_file()), None)
        relative = file.relative_to(ROOT).as_posix() if file else ""
        if file is None or relative in found:
            continue
        found[relative] = file.read_bytes()
        package = name if file.stem == "__init__" else name.rpartition(".")[0]
        waiting.append(name.rpartition(".")[0])
        for node in ast.walk(ast.parse(found[relative])):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                source = resolve_name("." * node.level + (node.module or ""), package)
                waiting += [source, *(f"{source}.{alias.name}" for alias in node.names)]
    return found
