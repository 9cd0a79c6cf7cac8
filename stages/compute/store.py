"""On the client and on workers: the store of trainings. What was trained once is not trained again.

A training has a folder named by its key, a hash of all that decides it, with the checkpoint that it has
reached so far. Training goes on from there, so a killed search resumes, a promoted trial continues and
another strategy reuses what is there, with no code for any of them. Deleting the folder, or any file in it,
costs time and changes no result.

A checkpoint is one file, EPOCH.npz, written whole or not at all: NumPy's archive of its arrays and, as one
more, of all else as JSON. Zip's checksums tell a damaged file, which is ignored and made again.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from tokenize import TokenError
from typing import IO
from zipfile import BadZipFile

import fsspec
import numpy as np

from stages.base.console import UserError, one_line
from stages.base.files import WRITING, remove_abandoned, replacing
from stages.training.checkpoint import Checkpoint

_ARRAYS = ("weights", "optimizer")
_BLOCK = 2**16  # bytes that are read at once from a URL
# What NumPy and zipfile raise for a file that is damaged
_DAMAGE = (ValueError, KeyError, EOFError, TypeError, RuntimeError, BadZipFile, zlib.error, TokenError)


def key(**decides: object) -> str:
    """Return the key of the training that `decides` describes: plain values that JSON can hold."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


class Store:
    """Checkpoints in a folder, or at a URL of fsspec such as s3://bucket/trials; safe for many processes.

    Raises:
        UserError: there is no such kind of URL or no package for it; and from all methods: it cannot be used.
    """

    def __init__(self, place: str):
        self.place, self._local = place, "://" not in place or place.startswith("file://")
        if self._local:  # a path, in which `::` and the like mean nothing
            self._files = fsspec.filesystem("file")
            self._folder = str(Path(place.removeprefix("file://")).absolute())
            return
        try:
            self._files, self._folder = fsspec.core.url_to_fs(place, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise UserError(f"params.yaml: runtime.store is {place}, which cannot be used: {error}") from None

    def load(self, key: str, epochs: int | None = None, *, arrays: bool = True) -> Checkpoint | None:
        """Return the longest whole checkpoint stored under `key`, of at most `epochs` epochs, or None.

        Without `arrays`, only what is in its JSON is read, and it has none.
        """
        for epoch, path in sorted(self._checkpoints(key).items(), reverse=True):
            if (epochs is None or epoch <= epochs) and (checkpoint := self._read(path, arrays)):
                return checkpoint
        return None

    def save(self, key: str, checkpoint: Checkpoint, *, keep: int = 0) -> None:
        """Store `checkpoint` under `key`, in place of shorter ones that are longer than `keep` epochs."""
        lists = {name: getattr(checkpoint, name) for name in _ARRAYS}
        arrays = {f"{name}{i}": array for name in lists for i, array in enumerate(lists[name])}
        about = json.dumps(vars(checkpoint) | {name: len(lists[name]) for name in lists}).encode()
        content, path = io.BytesIO(), f"{self._folder}/{key}/{checkpoint.epoch}.npz"
        np.savez(content, allow_pickle=False, json=np.frombuffer(about, np.uint8), **arrays)
        if self._local:
            with replacing(path) as temporary:
                temporary.write_bytes(content.getbuffer())
        else:
            with self._one_line_errors():
                self._files.pipe_file(path, content.getvalue())
        for epoch, path in self._checkpoints(key).items():
            if keep < epoch < checkpoint.epoch:
                with self._one_line_errors(missing_ok=True):
                    self._files.rm_file(path)

    def keys(self) -> set[str]:
        """Return the keys of all trainings that are stored."""
        with self._one_line_errors():
            if self._local:
                Path(self._folder).mkdir(parents=True, exist_ok=True)
            paths = self._files.find(self._folder)
        return {path.split("/")[-2] for path in paths if path.endswith(".npz") and f"/{WRITING}" not in path}

    def prune(self, size: float) -> None:
        """Delete what was not used for longest until all takes at most `size` bytes; only in a folder."""
        if not self._local:
            return
        used = {}
        for path in Path(self._folder).glob("*/*.npz"):
            with contextlib.suppress(FileNotFoundError):  # another process has deleted it
                used[path] = path.stat()
        for path in sorted(used, key=lambda path: (used[path].st_mtime, str(path)), reverse=True):
            size -= used[path].st_size
            if size < 0:
                path.unlink(missing_ok=True)
        for folder in Path(self._folder).glob("*/"):
            remove_abandoned(folder)
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()

    def _checkpoints(self, key: str) -> dict[int, str]:
        """The files stored under `key` by their epoch."""
        paths: list[str] = []
        with self._one_line_errors(missing_ok=True):
            paths = self._files.ls(f"{self._folder}/{key}", detail=False)
        return {int(found[1]): path for path in paths if (found := re.search(r"/(\d+)\.npz\Z", path))}

    def _read(self, path: str, arrays: bool) -> Checkpoint | None:
        """The checkpoint in `path`, None if it is damaged or another process has deleted it."""
        checkpoint = None
        with self._one_line_errors(missing_ok=True), self._files.open(path, block_size=_BLOCK) as file:
            checkpoint = _parse(file, arrays)
        if checkpoint and self._local:
            with contextlib.suppress(OSError):
                os.utime(path)  # what was not used for longest goes first
        return checkpoint

    @contextlib.contextmanager
    def _one_line_errors(self, *, missing_ok: bool = False) -> Iterator[None]:
        """Turn what a file system raises into one line that names the store; or pass over a missing file."""
        try:
            yield
        except MemoryError:
            raise
        except Exception as error:
            if missing_ok and isinstance(error, FileNotFoundError):
                return
            reason = f"params.yaml: runtime.store {self.place} cannot be used ({one_line(error)})"
            raise UserError(reason) from None


def _parse(file: IO[bytes], arrays: bool) -> Checkpoint | None:
    """The checkpoint in `file`, None if it is damaged."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            about = json.loads(archive["json"].tobytes())
            for name in _ARRAYS:
                about[name] = [archive[f"{name}{i}"] for i in range(about[name])] if arrays else []
            return Checkpoint(**about)
    except _DAMAGE:
        return None
    except OSError as error:
        if error.errno == errno.EINVAL:  # a damaged place in it, where no file has one
            return None
        raise
