"""The store of trainings: what was trained once is not trained again.

A training is stored under its key, a hash of all that decides it (`key`), in the state it has reached so far. Training goes on
from there, so a killed search resumes, a promoted trial continues and another strategy reuses what is there, with no code for
any of them. Deleting the folder, or any file in it, costs time and changes no result.

An entry is one file: a SHA-256 and, after it, a NumPy archive. It is written whole or not at all; whatever does not match its
digest is ignored and made again.
"""

import hashlib
import io
import json
import shutil
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

import stages
from stages.files import replacing
from stages.splits import Split
from stages.training import State

TRAINING_CODE = ("backend.py", "model.py", "training.py")  # the files of stages/ that decide what a training comes to
TRAINING_PACKAGES = ("tensorflow", "keras", "numpy")
_DIGEST_SIZE = hashlib.sha256().digest_size
_ABANDONED = 3600  # seconds after which a temporary folder is of a process that was killed


def code_digest() -> str:
    """Return a hash of the code that trains: this repository's and the versions of the packages below it."""
    digest = hashlib.sha256(json.dumps([(name, version(name)) for name in TRAINING_PACKAGES]).encode())
    for name in TRAINING_CODE:
        digest.update((Path(stages.__path__[0]) / name).read_bytes())
    return digest.hexdigest()


def data_digest(data: Split) -> str:
    """Return a hash of the images and labels of `data`."""
    digest = hashlib.sha256()
    for array in (data.images, data.labels):
        digest.update(json.dumps([array.shape, str(array.dtype)]).encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def key(**decides: object) -> str:
    """Return the key of the training that `decides` describes: plain values that JSON can hold."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


class Store:
    """A folder of entries, safe for several processes at once; the oldest go first when it outgrows `size_limit` bytes."""

    def __init__(self, folder: Path, size_limit: float):
        self.folder = folder
        self.size_limit = size_limit

    def load(self, key: str) -> State | None:
        """Return the state stored under `key`, None if there is none or it is damaged."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        digest, archive = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
        if hashlib.sha256(archive).digest() != digest:
            return None
        path.touch()  # the oldest is the one that was not used for longest
        with np.load(io.BytesIO(archive), allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes())
            weights = [arrays[f"weight{i}"] for i in range(about.pop("weights"))]
            optimizer = [arrays[f"optimizer{i}"] for i in range(about.pop("optimizer"))]
            return State(weights=weights, optimizer=optimizer, **about)

    def save(self, key: str, state: State) -> None:
        """Store `state` under `key`, in place of an earlier one."""
        about = {
            "epoch": state.epoch,
            "history": state.history,
            "seconds": state.seconds,
            "stopped": state.stopped,
            "weights": len(state.weights),
            "optimizer": len(state.optimizer),
        }
        arrays = {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}
        arrays |= {f"weight{i}": array for i, array in enumerate(state.weights)}
        arrays |= {f"optimizer{i}": array for i, array in enumerate(state.optimizer)}
        archive = io.BytesIO()
        np.savez(archive, allow_pickle=False, **arrays)
        with replacing(self._path(key)) as temporary, temporary.open("wb") as file:
            file.write(hashlib.sha256(archive.getbuffer()).digest())
            file.write(archive.getbuffer())

    def prune(self) -> None:
        """Delete the entries that were not used for longest until all together take at most `size_limit` bytes."""
        for path in self.folder.glob(".writing-*"):
            if time.time() - _stat(path)[0] > _ABANDONED:
                shutil.rmtree(path, ignore_errors=True)
        entries = sorted(((*_stat(path), path) for path in self.folder.glob("*.trial")), reverse=True)
        total = 0
        for _, size, path in entries:
            total += size
            if total > self.size_limit:
                path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.trial"


def _stat(path: Path) -> tuple[float, int]:
    """When `path` was last used and its size; (0, 0) if another process has deleted it."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_mtime, stat.st_size
