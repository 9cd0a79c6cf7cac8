"""For the fork server, from which workers of this machine are forked: import TensorFlow, but do not start it.

Errors are hidden here: each worker imports TensorFlow again, and the client reports why it could not.
"""

import sys
from contextlib import suppress

from stages.training.quiet import quiet


def _hide_import_errors(kind, error, traceback) -> None:
    if not issubclass(kind, MemoryError | OSError | ImportError | SystemError):
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _hide_import_errors  # the workers inherit it
with quiet(), suppress(Exception):
    import tensorflow  # noqa: F401
