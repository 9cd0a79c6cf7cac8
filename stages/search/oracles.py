"""From a strategy's name to KerasTuner's oracle, which decides what to try next.

An oracle is used without KerasTuner's tuners: asked with `create_trial`, told with `update_trial` and
`end_trial`. It keeps its state in memory and prints nothing.
"""

import math

from stages.base.params import Boolean, Choice, Dimension, IntRange, Tune
from stages.training.quiet import quiet

with quiet():  # it imports TensorFlow
    import keras_tuner


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
    """KerasTuner's waits for a trial's end for new hyperparameters in it. Here are none: all run at once."""

    def populate_space(self, trial_id):
        response = super().populate_space(trial_id)
        if response["status"] == "RUNNING":
            self._populate_next.append(trial_id)
        return response


def search_space(space: dict[str, Dimension]) -> keras_tuner.HyperParameters:
    """Return `tune.space` as KerasTuner's `HyperParameters`."""
    hyperparameters = keras_tuner.HyperParameters()
    for name, dimension in space.items():
        _add(hyperparameters, name, dimension)
        added = hyperparameters.space[-1]
        added.conditions = [_condition(*each, space) for each in _conditions(name, space).items()]
        if not hyperparameters.is_active(added):
            del hyperparameters.values[name]
    return hyperparameters


def _condition(parent: str, active: list, space: dict[str, Dimension]):
    """KerasTuner's condition that `parent` has one of the values `active`.

    It has conditions from a `conditional_scope` only, and these cannot be of two parents side by side.
    """
    scratch = keras_tuner.HyperParameters()
    _add(scratch, parent, space[parent])
    with scratch.conditional_scope(parent, active):
        scratch.Boolean(f"child of {parent}")
    return scratch.space[-1].conditions[0]


def _conditions(name: str, space: dict[str, Dimension]) -> dict[str, list]:
    """The values of others with which `name` is active, those of a parent's parents first."""
    conditions: dict[str, list] = {}
    for parent, active in space[name].when.items():
        for other, values in (_conditions(parent, space) | {parent: active}).items():
            conditions[other] = [value for value in values if value in conditions.get(other, values)]
    return conditions


def _add(hyperparameters: keras_tuner.HyperParameters, name: str, dimension: Dimension) -> None:
    if isinstance(dimension, Choice):
        hyperparameters.Choice(name, dimension.values)
    elif isinstance(dimension, Boolean):
        hyperparameters.Boolean(name)
    elif isinstance(dimension, IntRange):
        steps = {"step": dimension.step, "sampling": dimension.sampling}
        hyperparameters.Int(name, dimension.min, dimension.max, **steps)
    else:
        bounds = dimension.min - _slack(dimension), dimension.max + _slack(dimension)
        hyperparameters.Float(name, *bounds, step=dimension.step, sampling=dimension.sampling)


def _slack(dimension) -> float:
    """What a linear dimension with a step is wider on each side: KerasTuner uses //, and 0.3 // 0.1 is 2."""
    return 1e-9 * dimension.step if dimension.step and dimension.sampling == "linear" else 0.0


def values(trial: keras_tuner.engine.trial.Trial) -> dict[str, object]:
    """Return the active hyperparameters that `trial` asks for; floats with 10 digits, so that 3 * 0.1 is 0.3.

    On a log scale KerasTuner may ask for an integer as a float, or for one above the highest.
    """
    hyperparameters: dict[str, object] = {}
    for dimension in filter(trial.hyperparameters.is_active, trial.hyperparameters.space):
        value = trial.hyperparameters.values[dimension.name]
        if isinstance(dimension, keras_tuner.engine.hyperparameters.Int):
            value = min(int(value), dimension.max_value)
        if isinstance(dimension, keras_tuner.engine.hyperparameters.Float):
            value = float(f"{value + _slack(dimension):.10g}")
        hyperparameters[dimension.name] = value
    return hyperparameters


def epochs(trial: keras_tuner.engine.trial.Trial, max_epochs: int) -> int:
    """Return the epoch to train `trial` to: what Hyperband grants it, `max_epochs` with other oracles."""
    return trial.hyperparameters.values.get("tuner/epochs", max_epochs)
