"""Run the tutorial's search as it is written there: KerasTuner's `Hyperband`, `model.fit`, no code from here.

Run as `python -m benchmarks.tutorial FOLDER`: reads the prepared data below FOLDER, prints one line of JSON.
"""

import json
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    start = time.perf_counter()
    import keras
    import keras_tuner
    import numpy as np

    folder_of_data = Path(sys.argv[1]) / "training"
    examples = [np.load(folder_of_data / f"{name}.npy") for name in ("inputs", "labels")]
    size = json.loads((folder_of_data / "about.json").read_text())["train"]
    train, validation = ([array[rows] for array in examples] for rows in (slice(size), slice(size, None)))

    def build(hp):
        model = keras.Sequential(
            [
                keras.layers.Flatten(),
                keras.layers.Dense(hp.Int("units", min_value=16, max_value=512, step=16), activation="relu"),
                keras.layers.Dropout(0.2),
                keras.layers.Dense(10, activation="softmax"),
            ]
        )
        model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    epochs = 0

    class Count(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            nonlocal epochs
            epochs += 1

    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.Hyperband(
            build,
            objective="val_accuracy",
            max_epochs=10,
            factor=3,
            seed=43,
            directory=folder,
            project_name="tutorial",
        )
        stop_early = keras.callbacks.EarlyStopping(monitor="val_loss", patience=5)
        tuner.search(*train, validation_data=validation, callbacks=[stop_early, Count()], verbose=0)
        best = tuner.get_best_hyperparameters()[0].get("units")
        trials = len(tuner.oracle.trials)
    print(
        json.dumps(
            {"seconds": time.perf_counter() - start, "trials": trials, "epochs": epochs, "units": best}
        )
    )


if __name__ == "__main__":
    main()
