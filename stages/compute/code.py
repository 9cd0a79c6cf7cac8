"""Which code decides what a training comes to, found by its imports: it names stored trainings and is sent to the workers."""

import ast
from importlib.util import resolve_name
from pathlib import Path

import stages

ROOT = Path(stages.__path__[0]).parent
TRAINING = Path("stages/training")


def training_code() -> dict[str, bytes]:
    """Return the files of stages/training and all that its model.py imports from the repository, by path."""
    whole = (path for path in (ROOT / TRAINING).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return imported("stages.training.model") | {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in whole}


def worker_code() -> dict[str, bytes]:
    """Return what a worker needs to train: `training_code` and what compute/worker.py imports."""
    return dict(sorted((training_code() | imported("stages.compute.worker")).items()))


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
