"""Import TensorFlow quietly, a sixth faster, and without environment variables that change results."""

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

# Prefixes of variables that may change the bits of a training, and exceptions; TF_ENABLE_ONEDNN_OPTS is in
# the key of a stored training
_CHANGING = ("TF_", "TENSORFLOW_", "XLA_", "ONEDNN_", "DNNL_", "CUBLAS_", "CUDNN_", "NVIDIA_TF32_OVERRIDE")
_HARMLESS = ("TF_CPP_", "TF_ENABLE_ONEDNN_OPTS", "TF_FORCE_GPU_ALLOW_GROWTH", "TF_GPU_ALLOCATOR")
for _name in list(os.environ):
    if _name.startswith(_CHANGING) and not _name.startswith(_HARMLESS):
        del os.environ[_name]
os.environ["KERAS_BACKEND"] = "tensorflow"  # overrides ~/.keras/keras.json; TensorFlow imports Keras
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no warnings from TensorFlow's C++ core


@contextmanager
def quiet() -> Iterator[None]:
    """Capture standard error, including C++'s; print it only if the block raises an exception, not on Ctrl-C.

    Meanwhile, Python's garbage collector is off. The objects that the first import of TensorFlow creates are
    exempt from later collections too, which would scan them again and again and, in forked processes, copy
    the memory that they share.
    """
    first = "tensorflow" not in sys.modules  # later, freezing would also keep objects that can be freed
    gc.disable()
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except Exception:
            captured.seek(0)
            os.write(stderr, captured.read())
            raise
        finally:
            if first:
                gc.freeze()
            gc.enable()
            os.dup2(stderr, 2)
            os.close(stderr)
