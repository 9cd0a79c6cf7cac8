"""The score that the search, the interval and the verdict use. A fork with another goal changes it."""

import numpy as np

NAME = "accuracy"  # in all files; `val_accuracy` and `test_accuracy` are its means


def score(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray | float:
    """Return how good the outputs of a whole set are, higher is better: here the share that is right.

    That is the likeliest class of a softmax, or what a sigmoid finds likelier than not. Of an example with
    several labels, such as words, each counts, those of padding too.

    Args:
        labels: (n,) or (n, ...), as the data set has them.
        outputs: (n, ...) float32, as the network returns them.

    Returns:
        A number for each example, (n,), or one for the whole set, such as scikit-learn's `roc_auc_score`.

    Raises:
        ValueError: they are no classes.
    """
    several = labels.ndim > 1 and outputs.shape == labels.shape
    if several and all(np.allclose(each.sum(-1), 1, atol=1e-3) for each in (labels, outputs)):
        # One-hot labels and a softmax
        right = outputs.argmax(-1) == labels.argmax(-1)
    elif outputs.shape in (labels.shape, (*labels.shape, 1)):  # sigmoids
        if not np.isin(labels, (0, 1)).all() or outputs.min() < 0 or outputs.max() > 1:
            raise ValueError("accuracy is of labels 0, 1 and outputs from 0 to 1; for others, change score")
        right = (outputs.reshape(labels.shape) > 0.5) == labels
    else:
        right = outputs.argmax(-1) == labels
    return right.reshape(len(labels), -1).mean(1)
