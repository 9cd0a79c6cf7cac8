"""What is good: the one function that the search, the interval and the verdict go by. A fork with another idea changes it."""

from stages.training.backend import tf

NAME = "accuracy"  # in all files; `val_accuracy` and `test_accuracy` are its means


def score(labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Return one number for each example, (n,) float32, higher is better: 1 where the most probable class is the label, else 0.

    Args:
        labels: (n,), as the split has them.
        outputs: (n, outputs) float32, as the network returns them.
    """
    return tf.cast(tf.argmax(outputs, -1, output_type=labels.dtype) == labels, tf.float32)
