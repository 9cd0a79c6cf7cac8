"""KerasTuner's oracles, which decide what to try next, by the names of strategies.

They are used without KerasTuner's tuners: `create_trial` asks for a trial, `update_trial` and `end_trial`
report its result. They keep their state in memory and print nothing.
"""

import math

from stages.base.console import UserError
from stages.base.params import Dimension, FloatRange, Range, Tune
from stages.training.quiet import quiet

with quiet():  # KerasTuner imports TensorFlow
    import keras_tuner


def create(tune: Tune, seed: int) -> keras_tuner.Oracle:
    """Return the oracle for `tune.strategy` and `tune.space`, with the arguments in the strategy's block."""
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
        seed=seed + 1,  # KerasTuner takes 0 as no seed
        max_consecutive_failed_trials=math.inf,
        **settings,
    )
    oracle.verbose = 0
    oracle.save = oracle._save_trial = lambda *_: None
    return oracle


def only_random(oracle: keras_tuner.Oracle, tune: Tune) -> str | None:
    """Return a note if all trials of a Bayesian search are drawn at random; else None."""
    if not isinstance(oracle, keras_tuner.oracles.BayesianOptimizationOracle):
        return None
    initial = oracle.num_initial_points or 3 * len(oracle.hyperparameters.space)  # KerasTuner's default
    if oracle.max_trials > initial:
        return None
    block = f"tune.{tune.strategy}"
    return (
        f"note: {block} draws its first {initial} trials at random, and {block}.max_trials is "
        f"{oracle.max_trials}; raise it, or set {block}.num_initial_points"
    )


class _GridSearchOracle(keras_tuner.oracles.GridSearchOracle):
    """Asks for the whole grid at once. KerasTuner's waits for each trial, which could add hyperparameters."""

    def populate_space(self, trial_id):
        response = super().populate_space(trial_id)
        if response["status"] == "RUNNING":
            self._populate_next.append(trial_id)
        return response


def search_space(space: dict[str, Dimension]) -> keras_tuner.HyperParameters:
    """Return `tune.space` as KerasTuner's `HyperParameters`; UserError if one of them can never be active.

    They are built from configurations, since a `conditional_scope` cannot express two independent parents.
    """
    hyperparameters = keras_tuner.HyperParameters()
    for name, dimension in space.items():
        conditions = _conditions(name, space)
        if never := [parent for parent, values in conditions.items() if not values]:
            raise UserError(
                f"params.yaml: tune.space.{name} is never active: its `when` and those of its parents "
                f"have no value of {never[0]} in common"
            )
        config = {"name": name, **dimension.model_dump(exclude={"type", "when"})}
        parents = [{"name": parent, "values": values} for parent, values in conditions.items()]
        config["conditions"] = [{"class_name": "Parent", "config": parent} for parent in parents]
        if isinstance(dimension, Range):
            slack = _slack(dimension) if isinstance(dimension, FloatRange) else 0
            config |= {"min_value": config.pop("min") - slack, "max_value": config.pop("max") + slack}
        kind = dimension.type.capitalize()
        made = keras_tuner.engine.hyperparameters.deserialize({"class_name": kind, "config": config})
        hyperparameters.merge([made])
    return hyperparameters


def _conditions(name: str, space: dict[str, Dimension]) -> dict[str, list]:
    """The values of other hyperparameters for which `name` is active; ancestors come first."""
    conditions: dict[str, list] = {}
    for parent, active in space[name].when.items():
        for ancestor, values in (_conditions(parent, space) | {parent: active}).items():
            conditions[ancestor] = [value for value in values if value in conditions.get(ancestor, values)]
    return conditions


def _slack(dimension) -> float:
    """How much to widen a linear range with a step, since KerasTuner counts steps by //: 0.3 // 0.1 is 2."""
    return 1e-9 * dimension.step if dimension.step and dimension.sampling == "linear" else 0.0


def values(trial: keras_tuner.engine.trial.Trial) -> dict[str, object]:
    """Return the active hyperparameters of `trial`; floats are rounded to 10 digits, so that 3 * 0.1 is 0.3.

    On a log scale, KerasTuner may return an integer as a float, or one above the maximum; both are corrected.
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
    """Return the epoch to train `trial` to: Hyperband's budget, or `max_epochs` with other oracles."""
    return trial.hyperparameters.values.get("tuner/epochs", max_epochs)
