"""The network as a function of its hyperparameters; the one place to put another network.

Any compiled Keras model will do, as long as it maps images to class probabilities. A new hyperparameter is a keyword here and a
field of `Hyperparameters` in stages/params.py.
"""

from stages.backend import keras


def build(image_shape: tuple[int, ...], classes: int, *, units: int, dropout: float, learning_rate: float) -> keras.Model:
    """Return the tutorial's network, compiled: one hidden layer of `units`, `dropout` after it, Adam at `learning_rate`.

    Args:
        image_shape: of one image, without the batch: (height, width).
        classes: how many the softmax tells apart.
    """
    model = keras.Sequential(
        [
            keras.Input(image_shape),
            keras.layers.Flatten(),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(learning_rate), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
