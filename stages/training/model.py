"""The network as a function of its hyperparameters; the one place to put another network.

Any compiled Keras model will do, as long as it maps images to class probabilities. Its hyperparameters are the fields of
stages/base/hyperparameters.py. What this module imports from the repository is part of the key of each stored training.
"""

from stages.base.hyperparameters import Hyperparameters
from stages.training.backend import keras


def build(image_shape: tuple[int, ...], classes: int, hyperparameters: Hyperparameters) -> keras.Model:
    """Return the tutorial's network, compiled: one hidden layer, dropout after it, Adam.

    Args:
        image_shape: of one image, without the batch: (height, width).
        classes: how many the softmax tells apart.
    """
    model = keras.Sequential(
        [
            keras.Input(image_shape),
            keras.layers.Flatten(),
            keras.layers.Dense(hyperparameters.units, activation="relu"),
            keras.layers.Dropout(hyperparameters.dropout),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )
    adam = keras.optimizers.Adam(hyperparameters.learning_rate)
    model.compile(adam, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
