"""The store of trainings: what was trained once is not trained again.

A training has a folder named by its key, a hash of all that decides it, with the checkpoint that it has reached so far.
Training goes on from there, so a killed search resumes, a promoted trial continues and another strategy reuses what is there,
with no code for any of them. Deleting the folder, or any file in it, costs time and changes no result.

A checkpoint is one file: a SHA-256 and, after it, a NumPy archive. It is written whole or not at all; whatever does not match
its digest is ignored and made again.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np

from stages.base.files import replacing
from stages.base.splits import Split
from stages.training.trainer import Checkpoint

_ARRAYS = ("weights", "optimizer")
_DIGEST_SIZE = hashlib.sha256().digest_size
_SUFFIX = ".checkpoint"
_ABANDONED = 3600  # seconds after which a temporary folder is of a process that was killed


def data_digest(data: Split) -> str:
    """Return a hash of the inputs and labels of `data`."""
    digest = hashlib.sha256()
    for array in (data.inputs, data.labels):
        digest.update(json.dumps([array.shape, str(array.dtype)]).encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def key(**decides: object) -> str:
    """Return the key of the training that `decides` describes: plain values that JSON can hold."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


class Store:
    """A folder of checkpoints, safe for several processes at once; the oldest go first when it outgrows `size_limit` bytes."""

    def __init__(self, folder: Path, size_limit: float):
        self.folder = folder
        self.size_limit = size_limit

    def load(self, key: str, epochs: int | None = None) -> Checkpoint | None:
        """Return the longest whole checkpoint stored under `key`, of at most `epochs` epochs; None if there is none."""
        for epoch, path in sorted(self._checkpoints(key).items(), reverse=True):
            if epochs is None or epoch <= epochs:
                checkpoint = _read(path)
                if checkpoint:
                    return checkpoint
        return None

    def save(self, key: str, checkpoint: Checkpoint, *, keep: int = 0) -> None:
        """Store `checkpoint` under `key`, in place of shorter ones that are longer than `keep` epochs."""
        about = {name: value for name, value in vars(checkpoint).items() if name not in _ARRAYS}
        about |= {name: len(getattr(checkpoint, name)) for name in _ARRAYS}
        arrays = {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}
        arrays |= {f"{name}{i}": array for name in _ARRAYS for i, array in enumerate(getattr(checkpoint, name))}
        archive = io.BytesIO()
        np.savez(archive, allow_pickle=False, **arrays)
        with replacing(self.folder / key / f"{checkpoint.epoch}{_SUFFIX}") as temporary, temporary.open("wb") as file:
            file.write(hashlib.sha256(archive.getbuffer()).digest())
            file.write(archive.getbuffer())
        for epoch, path in self._checkpoints(key).items():
            if keep < epoch < checkpoint.epoch:
                path.unlink(missing_ok=True)

    def size(self) -> int:
        """Return how many trainings are stored."""
        return len({path.parent for path in self.folder.glob(f"*/*{_SUFFIX}")})

    def prune(self) -> None:
        """Delete the entries that were not used for longest until all together take at most `size_limit` bytes."""
        for path in self.folder.glob("*/.writing-*"):
            if time.time() - _stat(path)[0] > _ABANDONED:
                shutil.rmtree(path, ignore_errors=True)
        entries = sorted(((*_stat(path), path) for path in self.folder.glob(f"*/*{_SUFFIX}")), reverse=True)
        total = 0
        for _, size, path in entries:
            total += size
            if total > self.size_limit:
                path.unlink(missing_ok=True)

    def _checkpoints(self, key: str) -> dict[int, Path]:
        """The files stored under `key` by their epoch."""
        return {int(path.stem): path for path in (self.folder / key).glob(f"*{_SUFFIX}") if path.stem.isdecimal()}


def _read(path: Path) -> Checkpoint | None:
    """The checkpoint in `path`, None if it is damaged or another process has deleted it."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # the oldest is the one that was not used for longest
    digest, archive = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
    if hashlib.sha256(archive).digest() != digest:
        return None
    with np.load(io.BytesIO(archive), allow_pickle=False) as arrays:
        about = json.loads(arrays["about"].tobytes())
        lists = {name: [arrays[f"{name}{i}"] for i in range(about.pop(name))] for name in _ARRAYS}
        return Checkpoint(**lists, **about)


def _stat(path: Path) -> tuple[float, int]:
    """When `path` was last used and its size; (0, 0) if another process has deleted it."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_mtime, stat.st_size
