"""The network that is trained: the one function to change for another one.

What this module imports from the repository is part of the key of each stored training.
"""

from stages.training.backend import keras


def build(shapes, outputs: int, hyperparameters) -> keras.Model:
    """Return the first tutorial's network, compiled: one hidden layer, dropout after it, Adam.

    If it has parameters `steps_per_epoch` or `epochs`, as for a schedule of the learning rate, it gets these
    too. `epochs` is how far the training goes if nothing stops it: in the search `tune.max_epochs`. With such
    a schedule, leave `retrain.epochs` in params.yaml empty: the best epoch is not where a schedule ends.

    Args:
        shapes: of one example's input, (height, width) of an image; of several inputs, a dictionary by name.
        outputs: how many classes there are, of examples, pixels or words; or numbers in an example's label.
        hyperparameters: those under `baseline` and `tune.space` in params.yaml, by attribute.
    """
    model = keras.Sequential(
        [
            keras.Input(shapes),
            keras.layers.Flatten(),
            keras.layers.Dense(hyperparameters.units, activation="relu"),
            keras.layers.Dropout(hyperparameters.dropout),
            keras.layers.Dense(outputs, activation="softmax"),
        ]
    )
    adam = keras.optimizers.Adam(hyperparameters.learning_rate)
    model.compile(adam, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
