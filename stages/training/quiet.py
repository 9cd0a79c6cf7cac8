"""TensorFlow imported without noise, a sixth faster, with nothing from the environment that changes bits."""

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

# What changes a training's bits in TensorFlow, XLA, oneDNN; TF_ENABLE_ONEDNN_OPTS may vary, it is in the key
_FLAGS = ("TF_XLA_FLAGS", "XLA_FLAGS", "NVIDIA_TF32_OVERRIDE")
_MODES = ("TF_DETERMINISTIC_OPS", "TF_CUDNN_DETERMINISTIC", "TF_SET_ONEDNN_FPMATH_MODE")
for _name in list(os.environ):
    if _name.startswith(("ONEDNN_", "DNNL_")) or _name in _FLAGS + _MODES:
        del os.environ[_name]
os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever ~/.keras/keras.json says; TensorFlow imports Keras
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no warnings and information of TensorFlow's C++ core


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what is written to standard error, by C++ too; show it if the block raises, unless by Ctrl-C.

    Python's garbage collector rests meanwhile, and what was made stays: it will not look through TensorFlow
    again and again, nor copy to each forked process what they share.
    """
    first = "tensorflow" not in sys.modules  # what a later import finds alive may have to die
    gc.disable()
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            if first:
                gc.freeze()
            gc.enable()
            os.dup2(stderr, 2)
            os.close(stderr)
