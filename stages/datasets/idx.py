"""The IDX format, in which MNIST and data sets modelled on it are published."""

import math
from pathlib import Path

import numpy as np

_TRAIN_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
FILES = (*_TRAIN_FILES, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_UNSIGNED_BYTES = b"\0\0\x08"  # the first three bytes of such a file's magic number


def read(path: Path) -> np.ndarray:
    """Return the uint8 array in an IDX file (http://yann.lecun.com/exdb/mnist); ValueError if it is none."""
    content = path.read_bytes()
    start = 4 + 4 * int.from_bytes(content[3:4])  # four bytes of magic number, four for each dimension
    if not content.startswith(_UNSIGNED_BYTES) or len(content) < start:
        raise ValueError("not an IDX file of unsigned bytes")
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist())
    if len(content) - start != math.prod(shape):
        raise ValueError(f"its IDX header has shape {shape}, which does not match its {len(content)} bytes")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
