"""On the client: files that decide what a training comes to. They name it in the store and go to workers."""

import hashlib
import re
from modulefinder import ModuleFinder
from pathlib import Path

import yaml

import stages
from stages.base.console import UserError

ROOT = Path(stages.__path__[0]).parent
TRAINING, WORKER = "stages/training", "stages.compute.worker"
_IGNORED = re.compile(r"__pycache__|\..*|.*~")  # what Python and editors leave


def training_code() -> dict[str, bytes]:
    """Return the files of stages/training and those of the repository that a worker imports, by path.

    Raises:
        UserError: one of them is no Python, or a stage that depends on stages/training does not depend on it.
    """
    paths = (path for path in (ROOT / TRAINING).rglob("*") if path.is_file())
    whole = [path for path in paths if not any(map(_IGNORED.fullmatch, path.relative_to(ROOT).parts))]
    code = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in whole}
    for path in (path for path in code if path.endswith(".py")):
        try:
            compile(code[path], path, "exec")
        except SyntaxError as error:
            raise UserError(f"{path} is not valid Python: {error.msg}, line {error.lineno}") from None
    code |= imported(WORKER)
    for stage, entry in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        deps = [str(dep) for dep in entry.get("deps", [])]
        for path in code if TRAINING in deps else ():
            if path != "stages/__init__.py" and not any(Path(path).is_relative_to(dep) for dep in deps):
                raise UserError(
                    f"{path} decides what a training comes to, but {stage} in dvc.yaml does not depend on "
                    f"it; move it into {TRAINING}, or add it to the deps of the stages that train"
                )
    return code


def imported(module: str) -> dict[str, bytes]:
    """Return the files of the repository that importing `module` can read, by path; imports in functions too.

    Raises:
        UserError: one of them is in a folder that is no package.
    """
    finder = ModuleFinder(path=[str(ROOT)])
    try:
        finder.import_hook(module)
    except AttributeError:  # https://github.com/python/cpython/issues/84530
        raise UserError(f"{module} imports from a folder without __init__.py; add an empty one") from None
    except RuntimeError as error:
        if "changed size" not in str(error):
            raise
        return imported(module)  # it looks through a table of Python's that a thread of Dask's adds to
    paths = [getattr(each, "__file__", None) for each in finder.modules.values()]
    return {Path(path).relative_to(ROOT).as_posix(): Path(path).read_bytes() for path in paths if path}


def digest(code: dict[str, bytes]) -> str:
    """Return the name of `code`: a hash of its files' paths and contents."""
    return hashlib.sha256(repr(sorted(code.items())).encode()).hexdigest()
