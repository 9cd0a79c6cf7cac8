"""For the process that workers of this machine are forked from: it imports TensorFlow, and does not start it.

A failure is not said here: each worker tries again, and says why it cannot.
"""

from contextlib import suppress

from stages.training.quiet import quiet

with quiet(), suppress(Exception):
    import tensorflow  # noqa: F401
