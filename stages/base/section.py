"""The base class of all sections of params.yaml, the bound of its integers, and values as text."""

from collections.abc import Mapping
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

LARGEST = 1_000_000
PositiveInt = Annotated[int, Field(ge=1, le=LARGEST)]


class Section(BaseModel):
    """Base of all sections: immutable, finite numbers, no unknown keys, no conversion (`"512"` is no int)."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, content):
        """Replace the value of each unknown key by the list of known keys, for the error message."""
        if not isinstance(content, dict):
            return content
        known = [field.alias or name for name, field in cls.model_fields.items()]
        unknown = {shown(key): ", ".join(known) for key in content if key not in known}
        return {key: content[key] for key in content if key in known} | unknown


def shown(value: object) -> str:
    """Return `value` as YAML, in one line of at most 80 characters."""
    document = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=float("inf"))
    text = " ".join(document.split()).removesuffix(" ...")
    return text if len(text) <= 80 else f"{text[:77]}..."


def listed(hyperparameters: Mapping[str, object]) -> str:
    """Return hyperparameters as readable text: `units 512, dropout 0.2`."""
    texts = (f"{value:.4g}" if isinstance(value, float) else value for value in hyperparameters.values())
    return ", ".join(f"{name} {text}" for name, text in zip(hyperparameters, texts, strict=True))
