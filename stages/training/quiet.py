"""TensorFlow imported without its noise, which C++ and absl write before any setting in Python works, and a sixth faster."""

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever the environment or ~/.keras/keras.json says; TensorFlow imports Keras
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no warnings and information of TensorFlow's C++ core


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what is written to standard error, by C++ too; show it only if the block raises, for other reasons than Ctrl-C.

    Python's garbage collector rests meanwhile, and what was made stays: it will not look through TensorFlow again and again,
    nor copy to each forked process what they share.
    """
    gc.disable()
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(shown, held.read())
            raise
        finally:
            gc.freeze()
            gc.enable()
            os.dup2(shown, 2)
            os.close(shown)
