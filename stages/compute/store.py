"""On the client: the store of trainings, so that nothing is trained twice.

A training is stored under its key, a hash of all that decides its result, with the last checkpoint that it
reached. Training continues from there. So a killed search resumes, a promoted trial continues, and another
strategy reuses earlier trainings, all without code of their own. Deleting a file changes no result.

A checkpoint is one file, KEY-EPOCH.npz, written atomically: a NumPy archive of its arrays and of one more
array that holds everything else as JSON. Zip's checksums reveal a damaged file, which is ignored.
"""

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from tokenize import TokenError
from zipfile import BadZipFile

import numpy as np

from stages.base.console import UserError, one_line
from stages.base.files import remove_abandoned, replacing
from stages.training.checkpoint import Checkpoint

_ARRAYS = ("weights", "optimizer")
_KEY = "[0-9a-f]" * 64  # other files in the folder are left alone
# What NumPy and zipfile raise for a damaged file
_DAMAGE = (ValueError, KeyError, EOFError, TypeError, RuntimeError, BadZipFile, zlib.error, TokenError)


def key(**decides: object) -> str:
    """Return the key of the training that `decides` describes; its values must be serialisable as JSON."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


class Store:
    """Checkpoints in `folder`, which is created if missing. Several processes may use one store.

    Raises:
        UserError: the folder cannot be used; by `save`: a file cannot be written.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            next(folder.iterdir(), None)
        except OSError as error:
            line = f"params.yaml: runtime.store cannot be used: {folder}: {one_line(error)}"
            raise UserError(line) from None

    def load(self, key: str, epochs: int | None = None, *, arrays: bool = True) -> Checkpoint | None:
        """Return the longest readable checkpoint of `key`, of at most `epochs` epochs; None if there is none.

        Without `arrays` only the JSON is read, and the checkpoint has no arrays.
        """
        stored = {epoch: path for _, epoch, path in self._checkpoints(key)}
        for epoch in sorted(stored, reverse=True):
            if (epochs is None or epoch <= epochs) and (checkpoint := _read(stored[epoch], arrays)):
                return checkpoint
        return None

    def save(self, key: str, checkpoint: Checkpoint, *, keep: int = 0) -> None:
        """Store `checkpoint` under `key`; delete the earlier ones after epoch `keep`."""
        lists = {name: getattr(checkpoint, name) for name in _ARRAYS}
        arrays = {f"{name}{i}": array for name in lists for i, array in enumerate(lists[name])}
        about = json.dumps(vars(checkpoint) | {name: len(lists[name]) for name in lists}).encode()
        with replacing(self._folder / f"{key}-{checkpoint.epoch}.npz") as temporary:
            np.savez(temporary, allow_pickle=False, json=np.frombuffer(about, np.uint8), **arrays)
        for _, epoch, path in self._checkpoints(key):
            if keep < epoch < checkpoint.epoch:
                path.unlink(missing_ok=True)

    def keys(self) -> set[str]:
        """Return the keys of all stored trainings."""
        return {key for key, _, _ in self._checkpoints()}

    def prune(self, size: float) -> None:
        """Delete the least recently used checkpoints until the others take at most `size` bytes."""
        remove_abandoned(self._folder)
        used = {}
        for _, _, path in self._checkpoints():
            with contextlib.suppress(FileNotFoundError):  # deleted by another process
                used[path] = path.stat()
        for path in sorted(used, key=lambda path: (used[path].st_mtime, path), reverse=True):
            size -= used[path].st_size
            if size < 0:
                path.unlink(missing_ok=True)

    def _checkpoints(self, key: str = _KEY) -> Iterator[tuple[str, int, Path]]:
        """Yield key, epoch and path of each stored checkpoint, or of those of one key."""
        for path in self._folder.glob(f"{key}-*.npz"):
            stem, _, epoch = path.stem.partition("-")
            if epoch.isdigit():
                yield stem, int(epoch), path


def _read(path: Path, arrays: bool) -> Checkpoint | None:
    """The checkpoint in `path`; None if it cannot be read or was deleted by another process."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            about = json.loads(archive["json"].tobytes())
            for name in _ARRAYS:
                about[name] = [archive[f"{name}{i}"] for i in range(about[name])] if arrays else []
        checkpoint = Checkpoint(**about)
    except (OSError, *_DAMAGE):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # for `prune`
    return checkpoint
