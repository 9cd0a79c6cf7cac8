"""Outputs appear whole or not at all."""

import json

import pytest

from stages.files import replacing, write_json


def test_a_writer_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"units": 512})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"units": 16, "accuracy": float("nan")})
    assert json.loads(path.read_text()) == {"units": 512}
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_not_there_before_it_is_whole(tmp_path):
    path = tmp_path / "folder" / "file"
    with replacing(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]
