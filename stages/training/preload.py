"""Preloaded by the process that local workers are forked from: imports TensorFlow without starting it.

Errors are not printed here: each worker tries again, and the client reports why it cannot start.
"""

import sys
from contextlib import suppress

from stages.training.quiet import quiet


def _silent_without_memory(kind, error, traceback) -> None:
    if not issubclass(kind, MemoryError | OSError | ImportError | SystemError):
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _silent_without_memory  # also of the workers
with quiet(), suppress(Exception):
    import tensorflow  # noqa: F401
