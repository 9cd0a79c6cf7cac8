"""params.yaml as typed, validated objects; the only reader of the file.

Each section of the file is a class below, each key a field with its type and bounds. Unknown keys are refused, so a typo cannot
pass for a default. `load` reports every mistake in one line of its own, before any work starts.
"""

import re
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from stages.console import UserError

PositiveInt = Annotated[int, Field(ge=1)]
Metric = Literal["accuracy", "loss", "val_accuracy", "val_loss"]


class Section(BaseModel):
    """Base of all sections: exact types (`"512"` or `true` is no integer), finite numbers, no unknown keys, immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, content):
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for key in content if isinstance(content, dict) else ():
            if key not in known:
                raise PydanticCustomError("unknown_key", f"{key} is no key that is known here; use {', '.join(known)}")
        return content


class Hyperparameters(Section):
    """What `stages/model.py` builds a network from. The search space may name these fields and no others."""

    units: PositiveInt
    dropout: Annotated[float, Field(ge=0, lt=1)]
    learning_rate: Annotated[float, Field(gt=0)]


class Prepare(Section):
    """Which data, and which share of its training images becomes the validation split."""

    dataset: Literal["mnist", "fashion_mnist", "digits"]
    validation_split: Annotated[float, Field(gt=0, lt=1)]


class Train(Section):
    """The final trainings, `replicates` of each network with seeds of their own; `batch_size` holds for the search too."""

    epochs: PositiveInt
    batch_size: PositiveInt
    replicates: Annotated[int, Field(ge=3)]


class Range(Section):
    """Base of `int` and `float`: bounds included; with `sampling: log`, `step` is a factor."""

    sampling: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _bounds(self):
        if self.min > self.max:
            raise ValueError(f"min {self.min} should not be greater than max {self.max}")
        if self.sampling == "log" and self.min <= 0:
            raise ValueError(f"min {self.min} should be greater than 0 with sampling log")
        if self.sampling == "log" and self.step is not None and self.step <= 1:
            raise ValueError(f"step {self.step} should be greater than 1 with sampling log, where it is a factor")
        return self

    def extremes(self) -> list:
        """The smallest and the largest value."""
        return [self.min, self.max]


class IntRange(Range):
    """KerasTuner's `HyperParameters.Int`."""

    type: Literal["int"]
    min: int
    max: int
    step: PositiveInt | None = None


class FloatRange(Range):
    """KerasTuner's `HyperParameters.Float`."""

    type: Literal["float"]
    min: float
    max: float
    step: Annotated[float, Field(gt=0)] | None = None


class Choice(Section):
    """KerasTuner's `HyperParameters.Choice`."""

    type: Literal["choice"]
    values: Annotated[list[int | float | str | bool], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_type(self):
        if len({type(value) for value in self.values}) > 1:
            raise ValueError(f"values {_shown(self.values)} should be of one type")
        if len(set(self.values)) < len(self.values):
            raise ValueError(f"values {_shown(self.values)} should differ from each other")
        return self

    def extremes(self) -> list:
        """All values."""
        return self.values


class Boolean(Section):
    """KerasTuner's `HyperParameters.Boolean`."""

    type: Literal["boolean"]

    def extremes(self) -> list:
        """Both values."""
        return [False, True]


Dimension = Annotated[IntRange | FloatRange | Choice | Boolean, Field(discriminator="type")]


class EarlyStopping(Section):
    """Stop a trial when `monitor` has not improved for `patience` epochs."""

    monitor: Metric
    patience: PositiveInt


class Hyperband(Section):
    """Arguments of KerasTuner's `HyperbandOracle` (Li et al., 2018); its `max_epochs` is `tune.max_epochs`."""

    factor: Annotated[int, Field(ge=2)]
    hyperband_iterations: PositiveInt


class Random(Section):
    """Arguments of KerasTuner's `RandomSearchOracle`."""

    max_trials: PositiveInt


class Bayesian(Section):
    """Arguments of KerasTuner's `BayesianOptimizationOracle`; `num_initial_points: null` is 3 for each dimension of the space.

    `trials_at_once` are asked for before the first of them is told: more of them learn less from each other.
    """

    max_trials: PositiveInt
    num_initial_points: PositiveInt | None
    alpha: Annotated[float, Field(gt=0)]
    beta: Annotated[float, Field(ge=0)]
    trials_at_once: PositiveInt


class Grid(Section):
    """Arguments of KerasTuner's `GridSearchOracle`. `max_trials: null` is the whole grid."""

    max_trials: PositiveInt | None


class Sklearn(Bayesian):
    """KerasTuner's `SklearnTuner` over its `BayesianOptimizationOracle`: `cv` stratified folds a trial."""

    cv: Annotated[int, Field(ge=2)]


class Tune(Section):
    """The search: its strategy, what it maximises or minimises, which trial it chooses, its budget and its space.

    `target_accuracy` decides nothing: it is what the trials' `epochs_to_target` count to.
    """

    strategy: Literal["hyperband", "random", "bayesian", "grid", "sklearn"]
    objective: Literal["val_accuracy", "val_loss"]
    selection: Literal["one_standard_error", "best"]
    target_accuracy: Annotated[float, Field(gt=0, le=1)]
    max_epochs: PositiveInt
    executions_per_trial: PositiveInt
    early_stopping: EarlyStopping | None
    space: Annotated[dict[str, Dimension], Field(min_length=1)]
    hyperband: Hyperband
    random: Random
    bayesian: Bayesian
    grid: Grid
    sklearn: Sklearn


class Retrain(Section):
    """Whose hyperparameters retrain uses: the search's, or the baseline's as a control."""

    from_: Annotated[Literal["tune", "baseline"], Field(alias="from")]


class Compare(Section):
    """The comparison: `margin` is the loss of test accuracy that a smaller network is worth."""

    margin: Annotated[float, Field(gt=0, lt=1)]


class Runtime(Section):
    """How trainings run. Nothing here changes a result, so it is in no stage's params in dvc.yaml.

    `workers: null` is one process a core. `store` is where trainings are kept, `store_gigabytes` (1e9 bytes) how many at most.
    """

    workers: PositiveInt | None
    store: str
    store_gigabytes: Annotated[float, Field(gt=0)]

    @field_validator("store")
    @classmethod
    def _inside(cls, store):
        if PurePath(store).is_absolute() or ".." in PurePath(store).parts or not PurePath(store).parts:
            raise ValueError("should be a folder inside the repository, such as data/trials")
        return store


class Params(Section):
    """The whole of params.yaml."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    prepare: Prepare
    baseline: Hyperparameters
    train: Train
    tune: Tune
    retrain: Retrain
    compare: Compare
    runtime: Runtime

    @model_validator(mode="after")
    def _space_fits_the_model(self):
        for name, dimension in self.tune.space.items():
            if name not in Hyperparameters.model_fields:
                known = ", ".join(Hyperparameters.model_fields)
                raise ValueError(f"tune.space.{name} is no hyperparameter of the model; use {known}")
            for value in dimension.extremes():
                try:
                    Hyperparameters.model_validate({**self.baseline.model_dump(), name: value})
                except ValidationError as error:
                    raise ValueError(f"tune.space.{name} holds {_shown(value)}: {_says(error.errors()[0])}") from None
        if self.tune.strategy == "sklearn" and self.tune.objective != "val_accuracy":
            raise ValueError(
                f"tune.objective is {self.tune.objective}, but tune.strategy sklearn scores by accuracy; use val_accuracy"
            )
        return self


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with numbers such as `1e-3` read as YAML 1.2 (and so DVC) does: as floats, not as text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load(path: str | Path = "params.yaml") -> Params:
    """Read and validate `path`.

    Raises:
        UserError: the file is missing, empty, no YAML, or a key is missing, unknown or out of bounds; one line a mistake.
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)  # noqa: S506 - _Loader is a safe loader
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run from the top folder of the repository, or `git checkout {path}`") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{path} is not valid YAML: {place}{getattr(error, 'problem', None) or error}") from None
    if not isinstance(content, dict):
        found = "is empty" if content is None else f"holds {_shown(content)}"
        raise UserError(f"{path} {found}, but should hold the keys {', '.join(Params.model_fields)}; `git checkout {path}`")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise UserError("\nerror: ".join(f"{path}: {_line(mistake, content)}" for mistake in error.errors())) from None


def _line(mistake: dict, content: Any) -> str:
    """One of pydantic's errors as one line: the key as it stands in the file, its value, what it should be."""
    key = []
    for part in mistake["loc"]:  # leaves out the parts that pydantic adds for unions: they are in no file
        if (isinstance(content, dict) and part in content) or isinstance(content, list):
            key.append(str(part))
            content = content[part]
        elif part == mistake["loc"][-1] and mistake["type"] == "missing":
            key.append(str(part))
    if mistake["type"] == "unknown_key":
        return ".".join([*key, mistake["msg"]])
    if mistake["type"] == "missing":
        return f"{'.'.join(key)} is missing; add it"
    if not key:
        return _says(mistake)
    return f"{'.'.join(key)} is {_shown(mistake['input'])}, but {_says(mistake)}"


def _says(mistake: dict) -> str:
    """What pydantic has to say of a mistake, in the words of this project."""
    if mistake["type"] == "union_tag_not_found":
        return "should have a type: 'int', 'float', 'choice' or 'boolean'"
    if mistake["type"] == "union_tag_invalid":
        return f"its type should be one of {mistake['ctx']['expected_tags']}"
    if mistake["type"] == "model_type":
        return "should be a section of keys"
    return re.sub("^(Input|Value error,|Dictionary|List) ?", "", mistake["msg"])


def _shown(value: Any) -> str:
    """`value` as it would stand in the file, in one line of at most 80 characters."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=float("inf"))
    text = text.removesuffix("\n").removesuffix("\n...")
    return text if len(text) <= 80 else f"{text[:77]}..."
