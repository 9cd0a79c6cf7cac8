"""How a stage ends: one line for a user's mistake; any other error keeps its traceback."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from stages.base.console import one_line


def end(code: str, **more) -> subprocess.CompletedProcess:
    """Run `code` as the main function of a stage."""
    script = f"import os\nfrom stages.base import console\ndef main():\n    {code}\nconsole.run(main)"
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.PIPE, text=True, **more)


def test_a_reader_that_closes_the_pipe_ends_a_stage_silently():
    reading, writing = os.pipe()
    os.close(reading)
    done = end("[print('x' * 1000) for _ in range(1000)]", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_another_broken_pipe_keeps_its_traceback():
    done = end("raise BrokenPipeError(32, 'Broken pipe')", stdout=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.endswith("BrokenPipeError: [Errno 32] Broken pipe\n")


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (
            "import numpy; numpy.zeros(10**14)",
            "error: out of memory (Unable to allocate 728. TiB for an array with shape (100000000000000,) "
            "and data type float64); use smaller data, or a machine with more memory\n",
        ),
        (
            "raise MemoryError",
            "error: out of memory (an allocation failed); use smaller data, or a machine with more memory\n",
        ),
        (
            "raise OSError(24, 'Too many open files')",
            "error: too many open files (Too many open files); `ulimit -n 1024` and run again\n",
        ),
        (
            "open('docs')",
            "error: docs cannot be read or written (Is a directory); check its permissions and the free "
            "space, and run again\n",
        ),
        ("raise KeyboardInterrupt", "interrupted; `dvc repro` goes on from here\n"),
        (  # as when Python fails to remove a temporary folder after Ctrl-C
            "try:\n        raise KeyboardInterrupt\n    finally:\n        os.close(1000)",
            "interrupted; `dvc repro` goes on from here\n",
        ),
    ],
)
def test_what_a_user_can_fix_is_one_line(code, line):
    done = end(code)
    assert done.stderr == line
    assert done.returncode == (130 if "Keyboard" in code else 1)


@pytest.mark.parametrize(
    ("content", "line", "status"),
    [
        ("def score(:", "error: {} is not valid Python: invalid syntax, line 1\n", 1),
        (
            "import no_such_package",
            "error: the package no_such_package is not installed; activate the virtual environment, or "
            "`pip install -r requirements.txt`\n",
            1,
        ),
        ("raise KeyboardInterrupt", "interrupted; `dvc repro` goes on from here\n", -2),
        ("raise MemoryError", "error: out of memory before the stage began; check `ulimit -v`\n", 1),
        (
            "raise OSError(12, 'Cannot allocate memory')",
            "error: out of memory before the stage began; check `ulimit -v`\n",
            1,
        ),
    ],
)
def test_what_goes_wrong_before_a_stage_begins_is_one_line(tmp_path, content, line, status):
    shutil.copytree(ROOT / "stages", tmp_path / "stages")
    file = tmp_path / "stages/training/score.py"
    file.write_text(content)
    done = subprocess.run(
        [sys.executable, "-m", "stages.training.score"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (status, "", line.format(file))


def test_only_the_cause_of_tensorflows_trace_is_kept():
    trace = """Graph execution error:

Detected at node sequential_1/embedding_1/GatherV2 defined at (most recent call last):
  File "threading.py", line 1002, in _bootstrap
{{function_node __inference_predict_67}} indices[0,0] = 12 is not in [0, 10)
\t [[{{node sequential_1/embedding_1/GatherV2}}]] [Op:__inference_predict_67]"""
    assert one_line(ValueError(trace)) == "ValueError: indices[0,0] = 12 is not in [0, 10)"
    assert one_line(ValueError("too\nwide")) == "ValueError: too wide"
