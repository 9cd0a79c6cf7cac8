"""TensorFlow imported without noise, a sixth faster, with nothing from the environment that changes bits."""

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

# Whose variables may change a training's bits, and which of these do not or, TF_ENABLE_ONEDNN_OPTS, are in the key
_CHANGING = ("TF_", "TENSORFLOW_", "XLA_", "ONEDNN_", "DNNL_", "CUBLAS_", "CUDNN_", "NVIDIA_TF32_OVERRIDE")
_HARMLESS = ("TF_CPP_", "TF_ENABLE_ONEDNN_OPTS", "TF_FORCE_GPU_ALLOW_GROWTH", "TF_GPU_ALLOCATOR")
for _name in list(os.environ):
    if _name.startswith(_CHANGING) and not _name.startswith(_HARMLESS):
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
