"""What a person sees: one line for a mistake, one progress bar for long work.

Every stage script ends in `run(main)`. A `UserError` anywhere below it becomes one line on standard error and exit status 1;
any other exception is a bug and keeps its traceback.
"""

import multiprocessing
import signal
import sys
from collections.abc import Callable

from tqdm import tqdm

# Ctrl-C is for the process that the user started, which ends those that it started itself
if multiprocessing.current_process().name != "MainProcess":
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class UserError(Exception):
    """A mistake that the user can mend. The message is one line: key or file, value, what is allowed or what to do."""


def run(main: Callable[[], None]) -> None:
    """Call `main` and end the process with status 1 and one line on `UserError`, with status 130 on Ctrl-C."""
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def progress_bar(**options) -> tqdm:
    """A tqdm progress bar that is cleared when it is done and draws nothing where standard error is no terminal."""
    return tqdm(disable=None, leave=False, dynamic_ncols=True, **options)
