"""The network's hyperparameters, each stated once: a field here, its value under `baseline` in params.yaml.

stages/training/model.py builds the network from them. Nothing else in the code knows their names.
"""

from typing import Annotated

from pydantic import Field

from stages.base.section import PositiveInt, Section


class Hyperparameters(Section):
    """What a network is built from; `tune.space` may name these fields and no others."""

    units: PositiveInt
    dropout: Annotated[float, Field(ge=0, lt=1)]
    learning_rate: Annotated[float, Field(gt=0)]
