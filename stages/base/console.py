"""What users see: one line for a mistake, one progress bar for long work.

Every stage script ends in `run(main)`. A `UserError` anywhere below it becomes one line on standard error and
exit status 1; any other exception is a bug and keeps its traceback.
"""

import errno
import math
import os
import re
import select
import shutil
import sys
import textwrap
from collections.abc import Callable

from tqdm import tqdm

# Errors of a full disk or a folder that may not be written; EFBIG is the limit of `ulimit -f`
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
UNWRITABLE |= {errno.ENOTDIR, errno.EISDIR, errno.EEXIST}


class UserError(Exception):
    """A mistake that the user can mend. Its message is one line: key or file, value, what to do."""


def run(main: Callable[[], None]) -> None:
    """Call `main` and end the process with status 1 and one line on `UserError`, with 130 on Ctrl-C."""
    try:
        main()
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        if _interrupted(error):
            print("interrupted; `dvc repro` goes on from here", file=sys.stderr)
            sys.exit(130)
        if isinstance(error, BrokenPipeError) and _nobody_reads(sys.stdout):  # as in `... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        if message := _mistake(error):
            sys.exit(f"error: {message}")
        raise


def _interrupted(error: BaseException | None) -> bool:
    """Whether `error` is Ctrl-C, or was raised while Ctrl-C was handled."""
    return isinstance(error, KeyboardInterrupt) or (error is not None and _interrupted(error.__context__))


def _mistake(error: BaseException) -> str | None:
    """One line on `error` and what the user can do about it; None if it is a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError):
        reason = " ".join(str(error).split()) or "an allocation failed"
        return f"out of memory ({reason}); use smaller data, or a machine with more memory"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return f"too many open files ({error.strerror}); `ulimit -n 1024` and run again"
    if isinstance(error, OSError) and error.errno in UNWRITABLE and error.filename:
        return unwritable(error.filename, error)
    return None


def _nobody_reads(file) -> bool:
    """Whether `file` is a pipe whose other end was closed."""
    poll = select.poll()
    poll.register(file, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def unwritable(path: object, error: OSError) -> str:
    """Return the message for `path` that could not be written because of `error`."""
    reason = error.strerror or " ".join(str(error).split())
    mend = "free space there or allow writing, and run again: what was there is kept"
    return f"{path} cannot be written ({reason}); {mend}"


def one_line(error: BaseException) -> str:
    """Return the kind and the message of `error` in one line of at most 200 characters."""
    message, node, _ = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).partition("\n\t [[{{node")  # without colours
    if node:  # TensorFlow lists the graph's nodes; its last line is the cause
        message = message.splitlines()[-1].rpartition("}} ")[2]
    return " ".join(f"{type(error).__name__}: {message}".split())[:200]


def decimals(scale: float) -> str:
    """Return the format of numbers to compare with `scale`, such as a margin: it shows two digits of it."""
    return f".{max(0, 1 - math.floor(math.log10(scale))) if scale > 1e-12 else 4}f"


def count(number: int, what: str) -> str:
    """Return `1 epoch` or `5 epochs` for the word `epoch`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def result(line: str) -> None:
    """Print a stage's result; a terminal's lines break between words."""
    print(_broken(line, sys.stdout), flush=True)


def _broken(line: str, file) -> str:
    """`line`, with line breaks between words if `file` is a terminal."""
    columns = shutil.get_terminal_size().columns if file.isatty() else len(line) + 1
    return textwrap.fill(line, columns, break_long_words=False, break_on_hyphens=False)


def advance(bar: tqdm, steps: int) -> None:
    """Advance `bar`, which redraws its clock even if `steps` is 0."""
    bar.update(steps)
    bar.refresh()


def say(line: str) -> None:
    """Write a line to standard error, above the progress bar if there is one."""
    tqdm.write(_broken(line, sys.stderr), file=sys.stderr)


def progress_bar(title: str, total: int, unit: str = " epochs", **options) -> tqdm:
    """Return a tqdm progress bar that is drawn only on a terminal, and cleared at its end."""
    form = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{unit} [{elapsed}<{remaining}{postfix}]"
    shown = {"disable": None, "leave": False, "dynamic_ncols": True}
    return tqdm(desc=title, total=total, unit=unit, bar_format=form, **shown, **options)
