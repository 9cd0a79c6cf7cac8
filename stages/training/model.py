"""The network that is trained: the one function to change for another one.

Its hyperparameters are in stages/base/hyperparameters.py. What this module imports from the repository is
part of the key of each stored training.
"""

from stages.base.hyperparameters import Hyperparameters
from stages.training.backend import keras


def build(input_shape: tuple[int, ...], outputs: int, hyperparameters: Hyperparameters) -> keras.Model:
    """Return the quickstart's network, compiled: one hidden layer, dropout after it, Adam.

    Args:
        input_shape: of one example, without the batch: (height, width) of an image.
        outputs: how many classes the softmax tells apart.
    """
    model = keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Flatten(),
            keras.layers.Dense(hyperparameters.units, activation="relu"),
            keras.layers.Dropout(hyperparameters.dropout),
            keras.layers.Dense(outputs, activation="softmax"),
        ]
    )
    adam = keras.optimizers.Adam(hyperparameters.learning_rate)
    model.compile(adam, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
