"""What is good: the function that search, interval and verdict go by. A fork with another idea changes it."""

import numpy as np

NAME = "accuracy"  # in all files; `val_accuracy` and `test_accuracy` are its means


def score(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Return a number for each example (n,), higher is better: 1 if the likeliest class is the label, else 0.

    Args:
        labels: (n,), as the split has them.
        outputs: (n, outputs) float32, as the network returns them.
    """
    return outputs.argmax(1) == labels
