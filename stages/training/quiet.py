"""TensorFlow's start-up noise, held back: it is written by C++ and by absl before any setting in Python works."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no warnings and information of TensorFlow's C++ core


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
