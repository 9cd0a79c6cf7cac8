"""What the workers of a local cluster have in common: imported once, by the process that they are forked from.

TensorFlow is imported and not started, since threads and GPUs do not survive a fork.
"""

import gc
import signal

from stages.training.quiet import quiet

# Ctrl-C is for the process that the user started, which ends those that it started
signal.signal(signal.SIGINT, signal.SIG_IGN)

with quiet():
    import distributed  # noqa: F401
    import sklearn.model_selection  # noqa: F401
    import tensorflow  # noqa: F401

gc.freeze()  # the collector would otherwise copy to each worker what they share, and make this process's end a second longer
