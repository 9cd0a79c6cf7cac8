"""For the process that workers of this machine are forked from: it imports TensorFlow, and does not start it.

A failure is not said here: each worker tries again, and the client says why it cannot.
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
