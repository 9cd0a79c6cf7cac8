"""The store of trainings: what was trained once is not trained again.

A training has a folder named by its key, a hash of all that decides it, with the checkpoint that it has reached so far.
Training goes on from there, so a killed search resumes, a promoted trial continues and another strategy reuses what is there,
with no code for any of them. Deleting the folder, or any file in it, costs time and changes no result.

A checkpoint is one file, written whole or not at all: what is known of the training as JSON and, after it, a NumPy archive of
its arrays, each with its SHA-256. Whatever does not match its digest is ignored and made again.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem

from stages.base.console import UserError
from stages.base.files import WRITING, replacing
from stages.base.splits import Split
from stages.training.trainer import Checkpoint

_ARRAYS = ("weights", "optimizer")
_SUFFIX = ".checkpoint"
_DIGEST = hashlib.sha256().digest_size
_LENGTH = 3  # bytes that the JSON's length takes
_BLOCK = 2**16  # bytes that are read at once from a URL
_ABANDONED = 3600  # seconds after which a temporary folder is of a process that was killed


def data_digest(data: Split) -> str:
    """Return a hash of the inputs and labels of `data`."""
    digest = hashlib.sha256()
    for array in (data.inputs, data.labels):
        digest.update(json.dumps([array.shape, str(array.dtype)]).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def key(**decides: object) -> str:
    """Return the key of the training that `decides` describes: plain values that JSON can hold."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


class Store:
    """Checkpoints in a folder of this machine or at a URL of fsspec, such as s3://bucket/trials; safe for many processes.

    Raises:
        UserError: there is no such kind of URL, or its package is not installed.
        OSError: from all methods, if the URL cannot be reached, read or written.
    """

    def __init__(self, url: str):
        self.url = url
        try:
            self._files, self._folder = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise UserError(f"params.yaml: runtime.store is {url}, which cannot be used: {error}") from None
        self._local = isinstance(self._files, LocalFileSystem)

    def load(self, key: str, epochs: int | None = None, *, arrays: bool = True) -> Checkpoint | None:
        """Return the longest whole checkpoint stored under `key`, of at most `epochs` epochs; None if there is none.

        Without `arrays`, only its start is read, and it has none.
        """
        for epoch, path in sorted(self._checkpoints(key).items(), reverse=True):
            if epochs is None or epoch <= epochs:
                checkpoint = self._read(path, arrays)
                if checkpoint:
                    return checkpoint
        return None

    def save(self, key: str, checkpoint: Checkpoint, *, keep: int = 0) -> None:
        """Store `checkpoint` under `key`, in place of shorter ones that are longer than `keep` epochs."""
        archive = io.BytesIO()
        arrays = {f"{name}{i}": array for name in _ARRAYS for i, array in enumerate(getattr(checkpoint, name))}
        np.savez(archive, allow_pickle=False, **arrays)
        known = vars(checkpoint) | {name: len(getattr(checkpoint, name)) for name in _ARRAYS}
        about = json.dumps([known, hashlib.sha256(archive.getbuffer()).hexdigest()]).encode()
        with self._writing(f"{self._folder}/{key}/{checkpoint.epoch}{_SUFFIX}") as file:
            for part in (hashlib.sha256(about).digest(), len(about).to_bytes(_LENGTH, "big"), about, archive.getbuffer()):
                file.write(part)
        for epoch, path in self._checkpoints(key).items():
            if keep < epoch < checkpoint.epoch:
                with self._one_line_errors(), contextlib.suppress(FileNotFoundError):
                    self._files.rm_file(path)

    def keys(self) -> set[str]:
        """Return the keys of all trainings that are stored."""
        if self._local and any(path.is_file() for path in (Path(self._folder), *Path(self._folder).parents)):
            raise OSError(f"runtime.store {self.url} is a file or in one; name a folder")
        try:
            with self._one_line_errors():
                paths = self._files.find(self._folder)
                return {path.split("/")[-2] for path in paths if path.endswith(_SUFFIX) and f"/{WRITING}" not in path}
        except FileNotFoundError as error:  # such as a bucket
            raise OSError(f"runtime.store {self.url} cannot be used ({error})") from None

    def prune(self, size: float) -> None:
        """Delete what was not used for longest until all takes at most `size` bytes; only of a folder of this machine."""
        if not self._local:
            return
        for path in Path(self._folder).glob(f"*/{WRITING}*"):
            if time.time() - _stat(path)[0] > _ABANDONED:
                shutil.rmtree(path, ignore_errors=True)
        paths = Path(self._folder).glob(f"*/*{_SUFFIX}")
        for _, bytes_, path in sorted(((*_stat(path), path) for path in paths), reverse=True):
            size -= bytes_
            if size < 0:
                path.unlink(missing_ok=True)

    def _checkpoints(self, key: str) -> dict[int, str]:
        """The files stored under `key` by their epoch."""
        try:
            with self._one_line_errors():
                paths = self._files.ls(f"{self._folder}/{key}", detail=False)
        except FileNotFoundError:
            return {}
        names = {path: path.rpartition("/")[2].removesuffix(_SUFFIX) for path in paths if path.endswith(_SUFFIX)}
        return {int(name): path for path, name in names.items() if name.isdecimal()}

    def _read(self, path: str, arrays: bool) -> Checkpoint | None:
        """The checkpoint in `path`, None if it is damaged or another process has deleted it."""
        try:
            with self._one_line_errors(), self._files.open(path, "rb", block_size=_BLOCK) as file:
                digest, length = file.read(_DIGEST), file.read(_LENGTH)
                text = file.read(int.from_bytes(length, "big"))
                if hashlib.sha256(text).digest() != digest:
                    return None
                archive = file.read() if arrays else b""
        except OSError as error:
            if self._local or isinstance(error, FileNotFoundError):
                return None
            raise
        if self._local:
            with contextlib.suppress(OSError):
                os.utime(path)  # what was not used for longest goes first
        about, digest = json.loads(text)
        if not arrays:
            return Checkpoint(**about | dict.fromkeys(_ARRAYS, ()))
        if hashlib.sha256(archive).hexdigest() != digest:
            return None
        with np.load(io.BytesIO(archive), allow_pickle=False) as found:
            return Checkpoint(**about | {name: [found[f"{name}{i}"] for i in range(about[name])] for name in _ARRAYS})

    @contextlib.contextmanager
    def _writing(self, path: str) -> Iterator:
        """A file to write `path` with."""
        if self._local:
            with replacing(path) as temporary, temporary.open("wb") as file:
                yield file
        else:
            with self._one_line_errors(), self._files.open(path, "wb") as file:
                yield file

    @contextlib.contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        """Turn whatever a remote file system raises into an OSError in one line."""
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:
            if self._local:
                raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise OSError(f"runtime.store {self.url} cannot be used ({reason})") from None


def _stat(path: Path) -> tuple[float, int]:
    """When `path` was last used and its size; (0, 0) if another process has deleted it."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_mtime, stat.st_size
