"""Outputs appear whole or not at all."""

import json
import re
import subprocess
import sys

import pytest

from stages.base.console import UserError
from stages.base.files import read_json, replacing, write_json


def test_a_writer_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"units": 512})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"units": 16, "accuracy": float("nan")})
    assert json.loads(path.read_text()) == {"units": 512}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1, 2]", r"is damaged \(a list in place of a JSON object\); delete it and run `dvc repro`"),
        ("{", r"is damaged \(.+\); delete it and run `dvc repro`"),
        (None, "is missing; `dvc repro` makes it"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path, content, said):
    path = tmp_path / "tune.json"
    if content:
        path.write_text(content)
    with pytest.raises(UserError, match=f"^{path} {said}$"):
        read_json(path)


def test_a_disk_that_is_full_is_one_line_and_leaves_what_was_there(tmp_path):
    """A limit on file size stands in for a full disk: root, who may run the tests, can write anywhere."""
    write_json(tmp_path / "metrics.json", {"units": 512})
    for write in (
        "write_json(path, {'a': 'x' * 10**6})",
        "splits.save(path.parent, (splits.Split(np.zeros(10**6), np.zeros(10**6)), np.arange(10**6)))",
    ):
        code = (
            "import numpy as np; from pathlib import Path; from stages.base import console, splits; "
            "from stages.base.files import write_json; "
            f"path = Path({str(tmp_path / 'metrics.json')!r}); console.run(lambda: {write})"
        )
        command = ["bash", "-c", 'ulimit -f 100; exec "$0" -c "$1"', sys.executable, code]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1
        assert re.fullmatch(
            r"error: \S+/(metrics.json|inputs.npy) cannot be written \(.+\); free space .+\n", done.stderr
        ), done
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"units": 512}


def test_a_reader_of_the_first_lines_only_sees_no_traceback():
    code = "from stages.base import console; console.run(lambda: print('line\\n' * 100_000))"
    pipe = ["bash", "-c", 'set -o pipefail; "$@" | head -1', "bash", sys.executable, "-c", code]
    done = subprocess.run(pipe, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "line\n", "")


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/metrics\.json cannot be written"):
        write_json(tmp_path / "file/metrics.json", {})


def test_the_file_is_not_there_before_it_is_whole(tmp_path):
    path = tmp_path / "folder" / "file"
    with replacing(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]
