"""Files that appear whole or not at all: each is written under a temporary name, then renamed."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stages.base.console import UNWRITABLE, UserError, unwritable

if TYPE_CHECKING:
    import pandas as pd

WRITING = ".writing-"  # prefix of the names of temporary folders
_ABANDONED = 3600  # seconds; an older temporary folder was left by a process that was killed


def shared_root() -> Path:
    """Return the top folder of the repository, or of the original if this is DVC's copy for an experiment."""
    here = Path.cwd()
    copies = (folder for folder in here.parents if folder.parts[-3:] == (".dvc", "tmp", "exps"))
    return next((folder.parents[2] for folder in copies), here)


def remove_abandoned(folder: Path) -> None:
    """Delete the temporary folders that killed processes left in `folder`."""
    for path in folder.glob(f"{WRITING}*"):
        with suppress(OSError):  # another process may delete it first
            if time.time() - path.stat().st_mtime > _ABANDONED:
                shutil.rmtree(path)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path to write to; rename it to `path` if the block succeeds.

    The folder of `path` is created if it is missing. The temporary path has the same file name, for writers
    that depend on the suffix. If the block raises, the temporary file is removed.

    Raises:
        UserError: the disk is full, or there is no permission to write `path`.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent)
        with tempfile.TemporaryDirectory(prefix=WRITING, dir=path.parent) as folder:
            temporary = Path(folder) / path.name
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    except OSError as error:  # NumPy's has no number when it could not write all of an array
        if error.errno in UNWRITABLE or (type(error) is OSError and error.errno is None):
            raise UserError(unwritable(path, error)) from None
        raise


def write_json(path: str | Path, content: dict) -> None:
    """Write `content` as indented JSON, in the order of its keys; ValueError if a number is not finite."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict:
    """Return the JSON object in `path`; UserError if the file is missing or holds anything else."""
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__} in place of a JSON object")
        return content
    except FileNotFoundError:
        raise UserError(f"{path} is missing; `dvc repro` makes it") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run `dvc repro`") from None


def write_csv(path: str | Path, table: "pd.DataFrame") -> None:
    """Write `table` as CSV without its index; floats are as short as reading back the same bits allows."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
