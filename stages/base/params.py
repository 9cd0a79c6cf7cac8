"""params.yaml as typed, validated objects; no other module reads the file.

Each section is a class below, each key a field with its type and bounds. Unknown keys are refused, so a typo
is never ignored. `load` reports mistakes before any work starts: one line for each key that is unknown,
missing or out of bounds or, if there is none, one line for the first inconsistency between keys.
"""

import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML, YAMLError  # DVC's parser, so that both read the same values

from stages.base.console import UserError
from stages.base.section import LARGEST, PositiveInt, Section, shown

# Columns of metrics/plots/trials.csv besides the hyperparameters and the scores, which begin with val_
TRIAL_COLUMNS = {"trial", "budget", "epochs", "standard_error", "best_epoch", "seconds_per_epoch"}
TRIAL_COLUMNS |= {"parameters", "choice", "limit", "objective", "failure"}
Int = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
Epochs = Annotated[int, Field(ge=1, le=10_000)]


def _plain_value(value: object) -> object:
    """Return `value` if it is a finite number, text or a boolean; refuse YAML 1.1's `yes`, `on` and so on."""
    if not isinstance(value, int | float | str) or value != value or value in (float("inf"), -float("inf")):
        raise ValueError("should be a number, text, true or false")
    if str(value).lower() in ("yes", "no", "on", "off"):
        raise ValueError("should be true or false; in YAML 1.2 this word is text")
    return value


Value = Annotated[int | float | str | bool, BeforeValidator(_plain_value)]


class Prepare(Section):
    """A data set of stages/datasets/catalog.py, and the share of its train part to use for validation."""

    dataset: str
    validation_split: Annotated[float, Field(gt=0, lt=1)]


class Train(Section):
    """The final trainings: of each network `replicates`, each with its own seed."""

    epochs: Epochs
    replicates: Annotated[int, Field(ge=5, le=1000)]  # with fewer, the interval is too narrow: docs/review.md


class Conditional(Section):
    """Base of all kinds of hyperparameters in the space.

    `when` maps hyperparameters listed above this one to the values for which this one is active. Where it is
    inactive, the network does not have it and the search does not vary it.
    """

    when: dict[str, Annotated[list[Value], Field(min_length=1)]] = Field(default_factory=dict)

    @property
    def ends(self) -> tuple[object, object]:
        """Its first and last value; for a range, the minimum and the maximum."""
        values = getattr(self, "values", (False, True))
        return getattr(self, "min", values[0]), getattr(self, "max", values[-1])

    def active(self, hyperparameters: Mapping[str, object]) -> bool:
        """Whether this hyperparameter is active, given the values of the others."""
        return all(hyperparameters.get(name) in values for name, values in self.when.items())

    def holds(self, value: object) -> bool:
        """Whether `value` has the right type, as the baseline's must; an integer is also a float."""
        types = {type(value), type(self.ends[0])}
        return len(types) == 1 or (types == {int, float} and not isinstance(self, IntRange))

    def has(self, value: object) -> bool:
        """Whether `value` is one of its values."""
        return self.holds(value)


class Range(Conditional):
    """Base of `int` and `float`, both bounds included; with `sampling: log`, `step` is a factor."""

    sampling: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _bounds(self):
        if self.min > self.max:
            raise ValueError(f"min {self.min} should not be greater than max {self.max}")
        if self.sampling == "log" and self.min <= 0:
            raise ValueError(f"min {self.min} should be greater than 0 with sampling log")
        if self.sampling == "log" and self.step is not None and self.step <= 1:
            reason = "with sampling log, where it is a factor"
            raise ValueError(f"step {self.step} should be greater than 1 {reason}")
        return self

    def has(self, value):
        return self.holds(value) and self.min <= value <= self.max


class IntRange(Range):
    """KerasTuner's `HyperParameters.Int`."""

    type: Literal["int"]
    min: Int
    max: Int
    step: PositiveInt | None = None


class FloatRange(Range):
    """KerasTuner's `HyperParameters.Float`."""

    type: Literal["float"]
    min: float
    max: float
    step: Annotated[float, Field(gt=0)] | None = None


class Choice(Conditional):
    """KerasTuner's `HyperParameters.Choice`."""

    type: Literal["choice"]
    values: Annotated[list[Value], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_type(self):
        if len({type(value) for value in self.values}) > 1:
            raise ValueError(f"values {shown(self.values)} should be of one type")
        if len(set(self.values)) < len(self.values):
            raise ValueError(f"values {shown(self.values)} should differ from each other")
        return self

    def has(self, value):
        return self.holds(value) and value in self.values


class Boolean(Conditional):
    """KerasTuner's `HyperParameters.Boolean`."""

    type: Literal["boolean"]


Dimension = Annotated[IntRange | FloatRange | Choice | Boolean, Field(discriminator="type")]


class EarlyStopping(Section):
    """Stop a trial when `monitor` has not improved for `patience` epochs."""

    monitor: str
    patience: Epochs


class Hyperband(Section):
    """Arguments of KerasTuner's `HyperbandOracle` (Li et al., 2018); `max_epochs` is `tune.max_epochs`."""

    factor: Annotated[int, Field(ge=2, le=LARGEST)]
    hyperband_iterations: PositiveInt


class Random(Section):
    """Arguments of KerasTuner's `RandomSearchOracle`."""

    max_trials: PositiveInt


class Bayesian(Section):
    """Arguments of KerasTuner's `BayesianOptimizationOracle`; `num_initial_points: null` is 3 per dimension.

    `trials_at_once` trials run side by side; the more there are, the fewer results each choice is based on.
    """

    max_trials: PositiveInt
    num_initial_points: PositiveInt | None
    alpha: Annotated[float, Field(gt=0)]
    beta: Annotated[float, Field(ge=0)]
    trials_at_once: PositiveInt


class Grid(Section):
    """Arguments of KerasTuner's `GridSearchOracle`; `max_trials: null` is the whole grid."""

    max_trials: PositiveInt | None


class Sklearn(Bayesian):
    """KerasTuner's `SklearnTuner` with its `BayesianOptimizationOracle`: `cv` stratified folds per trial."""

    cv: Annotated[int, Field(ge=2, le=1000)]


class Tune(Section):
    """The search: strategy, objective, rule for choosing a trial, budget and space.

    With `selection: tolerance`, the smallest network is chosen whose validation score is at most `tolerance`
    below that of the best trial.
    """

    strategy: Literal["hyperband", "random", "bayesian", "grid", "sklearn"]
    objective: str
    selection: Literal["tolerance", "one_standard_error", "best"]
    tolerance: Annotated[float, Field(ge=0, le=LARGEST)]
    max_epochs: Epochs
    executions_per_trial: Annotated[int, Field(ge=1, le=1000)]
    early_stopping: EarlyStopping | None
    space: Annotated[dict[str, Dimension], Field(min_length=1)]
    hyperband: Hyperband
    random: Random
    bayesian: Bayesian
    grid: Grid
    sklearn: Sklearn


class Retrain(Section):
    """The hyperparameters that retrain uses, the search's or, as a control, the baseline's; and the epochs.

    `epochs: best` is the epoch at which the search scored the chosen trial; null is `train.epochs`. With the
    baseline's hyperparameters, it is always `train.epochs`.
    """

    from_: Annotated[Literal["tune", "baseline"], Field(alias="from")]
    epochs: Literal["best"] | Epochs | None


class Compare(Section):
    """The comparison: `margin` is how far below the baseline's test score the tuned network's may be."""

    margin: Annotated[float, Field(gt=0, le=LARGEST)]


class Runtime(Section):
    """How trainings run. Nothing here changes a result, so no stage in dvc.yaml depends on it.

    `workers: null` is one process per core. `store` is the folder where trainings are kept, relative to the
    repository or an absolute path, such as on a shared disk. Above `store_gigabytes` (1e9 bytes), the least
    recently used are deleted.
    """

    workers: Annotated[int, Field(ge=1, le=1024)] | None
    store: str
    store_gigabytes: Annotated[float, Field(gt=0)]

    @field_validator("store")
    @classmethod
    def _folder(cls, store):
        parts = PurePath(store).parts
        if not parts or "://" in store or ".." in parts:
            raise ValueError("should be a folder, such as data/trials or, for a shared one, an absolute path")
        try:
            Path(store).expanduser()
        except RuntimeError:
            raise ValueError("should be a folder; there is no such user") from None
        return store


class Params(Section):
    """The whole of params.yaml."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    prepare: Prepare
    baseline: dict[str, Value]
    train: Train
    tune: Tune
    retrain: Retrain
    compare: Compare
    runtime: Runtime

    def seeds(self, purpose: Literal["search", "final"], count: int) -> list[int]:
        """Return the seeds of `count` trainings; different purposes and different `seed` share no seed."""
        path = self.seed, ("search", "final").index(purpose)
        return [int(np.random.SeedSequence([*path, i]).generate_state(1)[0]) for i in range(count)]

    @model_validator(mode="after")
    def _names_are_free(self):
        for name in sorted({*self.baseline, *self.tune.space}):
            if name in TRIAL_COLUMNS or name.startswith("val_"):
                problem = "is a column of metrics/plots/trials.csv; give the hyperparameter another name"
                raise ValueError(f"baseline.{name} {problem}")
        return self

    @model_validator(mode="after")
    def _batch_size_is_a_count(self):
        size, dimension = self.baseline.get("batch_size"), self.tune.space.get("batch_size")
        if type(size) is not int or size < 1:
            state = "is missing" if size is None else f"is {shown(size)}"
            raise ValueError(f"baseline.batch_size {state}, but should be an integer, 1 at least")
        values = [dimension.min] if isinstance(dimension, IntRange) else getattr(dimension, "values", [None])
        if dimension and (dimension.when or not all(type(value) is int and value >= 1 for value in values)):
            raise ValueError("tune.space.batch_size should be integers, 1 at least, without `when`")
        return self

    @model_validator(mode="after")
    def _space_fits_the_baseline(self):
        above: list[str] = []
        for name, dimension in self.tune.space.items():
            if unknown := [parent for parent in dimension.when if parent not in above]:
                names = ", ".join(above)
                advice = f"use one listed above it: {names}" if names else "none is listed above it"
                raise ValueError(f"tune.space.{name}.when has {shown(unknown[0])}, but {advice}")
            for parent, values in dimension.when.items():
                if never := [value for value in values if not self.tune.space[parent].has(value)]:
                    raise ValueError(f"tune.space.{name}.when: {parent} is never {shown(never[0])}")
            above.append(name)
            value, active = self.baseline.get(name), dimension.active(self.baseline)
            if active and value is None:
                mistake = f"unknown hyperparameter; use {', '.join(self.baseline)}, or add it to baseline"
                raise ValueError(f"tune.space.{shown(name)}: {mistake}")
            if not active and value is not None:
                when = " and ".join(f"{key} is in {shown(values)}" for key, values in dimension.when.items())
                raise ValueError(f"baseline.{name} is never used: it is active when {when}; remove it")
            if active and not dimension.holds(value):
                raise ValueError(f"baseline.{name} is {shown(value)}, but tune.space says {dimension.type}")
            if active and isinstance(dimension, FloatRange):
                self.baseline[name] = float(value)
        return self


def load(path: str | Path = "params.yaml") -> Params:
    """Read and validate `path`.

    Raises:
        UserError: the file is missing, empty or not YAML; or keys are missing, unknown or out of bounds,
            with one line for each.
    """
    try:
        content = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        advice = f"run from the top folder of the repository, or `git checkout {path}`"
        raise UserError(f"{path} is missing; {advice}") from None
    except UnicodeDecodeError as error:
        problem = f"{error.reason} at byte {error.start}"
        raise UserError(f"{path} is not UTF-8 text ({problem}); save it as UTF-8") from None
    except (YAMLError, ValueError, KeyError, RecursionError) as error:  # bad date or !!bool, too deep
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise UserError(f"{path} is not valid YAML: {place}{' '.join(problem.split())}") from None
    if not isinstance(content, dict):
        state = "is empty" if content is None else f"holds {shown(content)}"
        keys = ", ".join(Params.model_fields)
        raise UserError(f"{path} {state}, but should hold the keys {keys}; `git checkout {path}`")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        problems: dict[str, list[str]] = {}  # for a key of several types, pydantic has one error per type
        for mistake in error.errors():
            problem, *allowed = _error_line(dict(mistake), content).split(", but ", 1)
            problems.setdefault(problem, []).extend(allowed)
        texts = (", but ".join(filter(None, (key, " or ".join(problems[key])))) for key in problems)
        lines = [f"{path}: {text}" for text in texts]
        raise UserError("\nerror: ".join(lines)) from None


def _error_line(mistake: dict, content: Any) -> str:
    """Return an error of pydantic's as one line: the key as in the file, its value, what it should be."""
    key = []
    for part in mistake["loc"]:  # pydantic adds parts for unions, which are not in the file: skip them
        try:
            content = content[part]
            key.append(shown(part))
        except (LookupError, TypeError):
            if part == mistake["loc"][-1] and mistake["type"] in ("missing", "extra_forbidden"):
                key.append(str(part))
    where = ".".join(key)
    if mistake["type"] == "missing":
        return f"{where} is missing; add it"
    if mistake["type"] == "extra_forbidden":
        return f"unknown key {where}; use {mistake['input']}"  # see Section._known_keys
    if where.startswith("tune.space.") and where.count(".") == 2 and not isinstance(content, dict):
        form, value = "{type: int, min: 16, max: 512} or the like", shown(content)
        one = f"-S tune.strategy=grid -S {where}.min={value} -S {where}.max={value} -S tune.tolerance=1"
        return f"{where} is {value}, but should be {form}; for one value: `dvc exp run {one}`"
    expected = _expectation(mistake)
    return f"{where} is {shown(mistake['input'])}, but {expected}" if where else expected


def _expectation(mistake: dict) -> str:
    """Return what pydantic expected, in this project's words."""
    if mistake["type"] == "union_tag_not_found":
        return "should have a type: 'int', 'float', 'choice' or 'boolean'"
    if mistake["type"] == "union_tag_invalid":
        return f"its type should be one of {mistake['ctx']['expected_tags']}"
    if mistake["type"] == "model_type":
        return "should be a section of keys"
    text = " ".join(mistake["msg"].split()).removesuffix(" after validation, not 0")
    return re.sub("^(Input|Value error,|Dictionary|List) ?", "", text)
