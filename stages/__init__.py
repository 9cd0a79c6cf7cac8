"""The pipeline: a script for each stage and a folder for each concept; see docs/architecture.md."""

import sys


def _report_in_one_line(kind, error, traceback) -> None:
    """Print one line for Ctrl-C, a missing package or lack of memory while a stage's modules are imported."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted; `dvc repro` goes on from here", file=sys.stderr)
    elif issubclass(kind, ModuleNotFoundError) and not (error.name or "stages").startswith("stages"):
        advice = "activate the virtual environment, or `pip install -r requirements.txt`"
        print(f"error: the package {error.name} is not installed; {advice}", file=sys.stderr)
    elif issubclass(kind, ImportError) and ".so" in str(error):  # a shared library cannot be loaded
        print(f"error: {error}; is there enough memory? check `ulimit -v`", file=sys.stderr)
    elif issubclass(kind, MemoryError) or getattr(error, "errno", None) == 12:  # ENOMEM
        print("error: out of memory before the stage began; check `ulimit -v`", file=sys.stderr)
    elif issubclass(kind, SyntaxError):
        print(
            f"error: {error.filename} is not valid Python: {error.msg}, line {error.lineno}", file=sys.stderr
        )
    else:
        sys.__excepthook__(kind, error, traceback)


if any(argument.startswith("stages.") for argument in sys.orig_argv):  # python -m stages.NAME
    sys.excepthook = _report_in_one_line
