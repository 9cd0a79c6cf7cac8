"""On the client: the store of trainings, so that no epoch is trained twice.

A training is stored under its key, a hash of everything that determines its result, with the checkpoints that
it has reached. Training continues from there. So, without special code, a killed search resumes, a promoted
trial continues and another strategy reuses trainings. Deleting any file costs time and changes no result.

A checkpoint is one file, KEY-EPOCH.npz, written whole or not at all: a NumPy archive of its arrays and of one
more, which holds everything else as JSON. A damaged file fails Zip's checksums; it is ignored and made again.
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
# What NumPy and zipfile raise for a file that is damaged
_DAMAGE = (ValueError, KeyError, EOFError, TypeError, RuntimeError, BadZipFile, zlib.error, TokenError)


def key(**decides: object) -> str:
    """Return the SHA-256 hash of `decides`, the values that determine a training, as JSON."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


class Store:
    """The checkpoints in `folder`, which is created if missing; several processes may use it at once.

    Raises:
        UserError: the folder cannot be used or, in `save`, a file cannot be written.
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
        """Return the latest readable checkpoint of `key`, of at most `epochs` epochs; None if there is none.

        Without `arrays`, only the JSON is read, and the checkpoint has no weights and optimizer state.
        """
        stored = {epoch: path for _, epoch, path in self._checkpoints(key)}
        for epoch in sorted(stored, reverse=True):
            if (epochs is None or epoch <= epochs) and (checkpoint := _read(stored[epoch], arrays)):
                return checkpoint
        return None

    def save(self, key: str, checkpoint: Checkpoint, *, keep: int = 0) -> None:
        """Store `checkpoint` under `key`; delete the checkpoints after epoch `keep` and before its own."""
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
        """Delete the least recently used checkpoints until the rest takes at most `size` bytes."""
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
        """Yield the key, the epoch and the file of each checkpoint, or of each checkpoint of `key`."""
        for path in self._folder.glob(f"{key}-*.npz"):
            stem, _, epoch = path.stem.partition("-")
            if epoch.isdigit():
                yield stem, int(epoch), path


def _read(path: Path, arrays: bool) -> Checkpoint | None:
    """Return the checkpoint in `path`; None if it is damaged, cannot be read or has been deleted."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            about = json.loads(archive["json"].tobytes())
            for name in _ARRAYS:
                about[name] = [archive[f"{name}{i}"] for i in range(about[name])] if arrays else []
        checkpoint = Checkpoint(**about)
    except (OSError, *_DAMAGE):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # `prune` goes by the time of last use
    return checkpoint
