"""What a person sees: one line for a mistake, one progress bar for long work.

Every stage script ends in `run(main)`. A `UserError` anywhere below it becomes one line on standard error and exit status 1;
any other exception is a bug and keeps its traceback.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no warnings and information of TensorFlow's C++ core


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


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what is written to standard error, by C++ too; show it only if the block raises."""
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(shown, held.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)
