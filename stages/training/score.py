"""What is good: the function that search, interval and verdict go by. A fork with another idea changes it."""

import numpy as np

NAME = "accuracy"  # in all files; `val_accuracy` and `test_accuracy` are its means


def score(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray | float:
    """Return how good the outputs of a whole set are, higher is better: here the share that is right.

    That is the likeliest class of a softmax, or what a sigmoid finds likelier than not.

    Args:
        labels: (n,) or (n, ...), as the data set has them.
        outputs: (n, ...) float32, as the network returns them.

    Returns:
        A number for each example, (n,), or one for the whole set, such as scikit-learn's `roc_auc_score`.
    """
    if outputs.shape == labels.shape:  # sigmoids
        right = (outputs > 0.5) == labels
    elif outputs.shape[-1] == 1:  # one sigmoid
        right = (outputs[..., 0] > 0.5) == labels
    else:
        right = outputs.argmax(-1) == labels
    return right.reshape(len(labels), -1).mean(1)
