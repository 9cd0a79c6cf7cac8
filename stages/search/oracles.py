"""From a strategy's name to KerasTuner's oracle, which decides what to try next.

An oracle is used without KerasTuner's tuners: asked with `create_trial`, told with `update_trial` and `end_trial`. It keeps its
state in memory and prints nothing.
"""

import math

import stages.training.backend  # noqa: F401 - before KerasTuner starts TensorFlow its own way

# isort: split
import keras_tuner

from stages.base.params import Boolean, Choice, Dimension, Tune


def create(tune: Tune, seed: int) -> keras_tuner.Oracle:
    """Return the oracle of `tune.strategy` over `tune.space`, with the arguments of the strategy's block."""
    settings = getattr(tune, tune.strategy).model_dump(exclude={"cv", "trials_at_once"})
    if tune.strategy == "hyperband":
        settings["max_epochs"] = tune.max_epochs
    oracle = {
        "hyperband": keras_tuner.oracles.HyperbandOracle,
        "random": keras_tuner.oracles.RandomSearchOracle,
        "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
        "grid": _GridSearchOracle,
        "sklearn": keras_tuner.oracles.BayesianOptimizationOracle,
    }[tune.strategy](
        objective=keras_tuner.Objective(tune.objective, "min" if tune.objective == "val_loss" else "max"),
        hyperparameters=search_space(tune.space),
        tune_new_entries=False,
        seed=seed + 1,  # KerasTuner takes 0 for no seed
        max_consecutive_failed_trials=math.inf,
        **settings,
    )
    oracle.verbose = 0
    oracle.save = oracle._save_trial = lambda *_: None
    return oracle


class _GridSearchOracle(keras_tuner.oracles.GridSearchOracle):
    """KerasTuner's, which waits for the end of a trial for new hyperparameters in it. Here are none: all can run at once."""

    def populate_space(self, trial_id):
        response = super().populate_space(trial_id)
        if response["status"] == "RUNNING":
            self._populate_next.append(trial_id)
        return response


def search_space(space: dict[str, Dimension]) -> keras_tuner.HyperParameters:
    """Return `tune.space` as KerasTuner's `HyperParameters`."""
    hyperparameters = keras_tuner.HyperParameters()
    for name, dimension in space.items():
        if isinstance(dimension, Choice):
            hyperparameters.Choice(name, dimension.values)
        elif isinstance(dimension, Boolean):
            hyperparameters.Boolean(name)
        elif dimension.type == "int":
            hyperparameters.Int(name, dimension.min, dimension.max, step=dimension.step, sampling=dimension.sampling)
        else:
            # KerasTuner counts (max - min) // step steps, where rounding can lose the last: (0.5 - 0.0) // 0.1 is 4
            last = dimension.max + 1e-9 * (dimension.step or 0)
            hyperparameters.Float(name, dimension.min, last, step=dimension.step, sampling=dimension.sampling)
    return hyperparameters


def values(trial: keras_tuner.engine.trial.Trial) -> dict[str, object]:
    """Return the hyperparameters that `trial` asks for; floats with 10 significant digits, so that 3 * 0.1 is 0.3."""
    return {
        name: float(f"{value:.10g}") if isinstance(value, float) else value
        for name, value in trial.hyperparameters.values.items()
        if not name.startswith("tuner/")
    }


def epochs(trial: keras_tuner.engine.trial.Trial, max_epochs: int) -> int:
    """Return the epoch that `trial` is to be trained to: what Hyperband grants it, `max_epochs` with the other oracles."""
    return trial.hyperparameters.values.get("tuner/epochs", max_epochs)
