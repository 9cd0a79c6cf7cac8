"""The network of the tests: a small dense one."""

from stages.training.backend import keras


def build(shapes, outputs, hyperparameters):
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
