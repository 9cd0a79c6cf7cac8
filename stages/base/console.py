"""Output for the user: one line for a mistake, one progress bar for long work.

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

# Error numbers when a file cannot be written; EFBIG: larger than `ulimit -f` allows
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
UNWRITABLE |= {errno.ENOTDIR, errno.EISDIR, errno.EEXIST}


class UserError(Exception):
    """A mistake that the user can fix.

    The message is one line: the key or file, its value, and what is allowed or what to do.
    """


def run(main: Callable[[], None]) -> None:
    """Call `main`; on `UserError`, print one line and exit with status 1; on Ctrl-C, exit with 130."""
    try:
        main()
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        if _interrupted(error):
            sys.unraisablehook = lambda _: None  # for objects of Dask that Ctrl-C left half made
            print("interrupted; `dvc repro` goes on from here", file=sys.stderr)
            sys.exit(130)
        if isinstance(error, BrokenPipeError) and _reader_closed(sys.stdout):  # such as `head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        if message := _user_message(error):
            sys.exit(f"error: {message}")
        raise


def _interrupted(error: BaseException | None) -> bool:
    """Whether `error` is Ctrl-C, or was raised while Ctrl-C was being handled."""
    return isinstance(error, KeyboardInterrupt) or (error is not None and _interrupted(error.__context__))


def _user_message(error: BaseException) -> str | None:
    """Return one line that tells the user what to do about `error`; None if it is a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError):
        reason = " ".join(str(error).split()) or "an allocation failed"
        return f"out of memory ({reason}); use smaller data, or a machine with more memory"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return f"too many open files ({error.strerror}); `ulimit -n 1024` and run again"
    if isinstance(error, OSError) and error.errno in UNWRITABLE and error.filename:
        advice = "check its permissions and the free space, and run again"
        return f"{error.filename} cannot be read or written ({error.strerror}); {advice}"
    return None


def _reader_closed(file) -> bool:
    """Whether `file` is a pipe that its reader has closed."""
    poll = select.poll()
    poll.register(file, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def unwritable(path: object, error: OSError) -> str:
    """Return the message for `path` that could not be written because of `error`."""
    reason = error.strerror or " ".join(str(error).split())
    advice = "free space there or allow writing, and run again; existing files are kept"
    return f"{path} cannot be written ({reason}); {advice}"


def one_line(error: BaseException) -> str:
    """Return the kind and the message of `error` in one line of at most 200 characters."""
    message, node, _ = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).partition("\n\t [[{{node")  # without colours
    if node:  # a trace of TensorFlow's graph; the cause is in the last line before it
        message = message.splitlines()[-1].rpartition("}} ")[2]
    return " ".join(f"{type(error).__name__}: {message}".split())[:200]


def decimals(scale: float) -> str:
    """Return a format specifier that shows `scale`, such as a margin, with two significant digits."""
    return f".{max(0, 1 - math.floor(math.log10(scale))) if scale > 1e-12 else 4}f"


def count(number: int, what: str) -> str:
    """Return a number with its noun: for `epoch`, `1 epoch` or `5 epochs`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def result(line: str) -> None:
    """Print a stage's result, wrapped between words on a terminal."""
    print(_wrapped(line, sys.stdout), flush=True)


def _wrapped(line: str, file) -> str:
    """Return `line`, wrapped to the width of the terminal if `file` is one."""
    columns = shutil.get_terminal_size().columns if file.isatty() else len(line) + 1
    return textwrap.fill(line, columns, break_long_words=False, break_on_hyphens=False)


def advance(bar: tqdm, steps: int) -> None:
    """Advance `bar` by `steps`, and redraw it even if they are 0, so that its clock runs."""
    bar.update(steps)
    bar.refresh()


def say(line: str) -> None:
    """Write a line to standard error, above the progress bar if there is one."""
    tqdm.write(_wrapped(line, sys.stderr), file=sys.stderr)


def progress_bar(title: str, total: int, unit: str = " epochs", **options) -> tqdm:
    """Return a tqdm progress bar that is drawn only on a terminal, and cleared when it is done."""
    form = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{unit} [{elapsed}<{remaining}{postfix}]"
    shown = {"disable": None, "leave": False, "dynamic_ncols": True}
    return tqdm(desc=title, total=total, unit=unit, bar_format=form, **shown, **options)
