"""What a person sees: one line for a mistake, one progress bar for long work.

Every stage script ends in `run(main)`. A `UserError` anywhere below it becomes one line on standard error and exit status 1;
any other exception is a bug and keeps its traceback.
"""

import errno
import math
import os
import sys
from collections.abc import Callable

from tqdm import tqdm

# What a disk or a folder that cannot be written says; EFBIG is the limit of `ulimit -f`
UNWRITABLE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
}


class UserError(Exception):
    """A mistake that the user can mend. The message is one line: key or file, value, what is allowed or what to do."""


def run(main: Callable[[], None]) -> None:
    """Call `main` and end the process with status 1 and one line on `UserError`, with status 130 on Ctrl-C."""
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:  # whoever read the output has read enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno not in UNWRITABLE or not error.filename:
            raise
        sys.exit(f"error: {unwritable(error.filename, error)}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def unwritable(path: object, error: OSError) -> str:
    """Return the message for `path` that could not be written because of `error`."""
    reason = error.strerror or " ".join(str(error).split())
    return f"{path} cannot be written ({reason}); free space there or allow writing, and run again: what was there is kept"


def decimals(scale: float) -> str:
    """Return the format for numbers that are read against `scale`, such as a margin: it shows two digits of it."""
    return f".{max(0, 1 - math.floor(math.log10(scale))) if scale > 1e-12 else 4}f"


def progress_bar(title: str, total: int, unit: str = " epochs", **options) -> tqdm:
    """A tqdm progress bar that is cleared when it is done and draws nothing where standard error is no terminal."""
    form = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{unit} [{elapsed}<{remaining}{postfix}]"
    return tqdm(desc=title, total=total, unit=unit, bar_format=form, disable=None, leave=False, dynamic_ncols=True, **options)
