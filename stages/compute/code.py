"""On the client: the source files that determine the result of a training, to hash and to send to workers."""

import hashlib
import re
from modulefinder import ModuleFinder
from pathlib import Path

import yaml

import stages
from stages.base.console import UserError

ROOT = Path(stages.__path__[0]).parent
TRAINING, WORKER = "stages/training", "stages.compute.worker"
_IGNORED = re.compile(r"__pycache__|\..*|.*~")  # files of Python and editors


def training_code() -> dict[str, bytes]:
    """Return the files of stages/training, and all files of the repository that worker.py imports, by path.

    Raises:
        UserError: a file is not valid Python, or a stage in dvc.yaml depends on stages/training but not on
            one of the other files.
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
                    f"{path} determines the result of a training, but {stage} in dvc.yaml does not depend "
                    f"on it; move it into {TRAINING}, or add it to the deps of the stages that train"
                )
    return code


def imported(module: str) -> dict[str, bytes]:
    """Return the files of the repository that `module` imports, also indirectly or in a function, by path.

    Raises:
        UserError: a file is in a folder that is not a package.
    """
    finder = ModuleFinder(path=[str(ROOT)])
    try:
        finder.import_hook(module)
    except AttributeError:  # https://github.com/python/cpython/issues/84530
        raise UserError(f"{module} imports from a folder without __init__.py; add an empty one") from None
    except RuntimeError as error:
        if "changed size" not in str(error):
            raise
        return imported(module)  # it iterates over a cache of Python's, to which Dask's threads may add
    paths = [getattr(each, "__file__", None) for each in finder.modules.values()]
    return {Path(path).relative_to(ROOT).as_posix(): Path(path).read_bytes() for path in paths if path}


def digest(code: dict[str, bytes]) -> str:
    """Return a SHA-256 hash of the paths and contents of `code`."""
    return hashlib.sha256(repr(sorted(code.items())).encode()).hexdigest()
