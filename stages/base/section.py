"""The base of all sections of params.yaml, and the bounds of its integers."""

from collections.abc import Mapping
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

LARGEST = 1_000_000
PositiveInt = Annotated[int, Field(ge=1, le=LARGEST)]


class Section(BaseModel):
    """Base of sections: immutable; known keys, finite numbers and exact types (`"512"` is no integer)."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, content):
        """Replace the value of each unknown key by the known keys, which the error message lists."""
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
    """Return hyperparameters in words: `units 512, dropout 0.2`."""
    texts = (f"{value:.4g}" if isinstance(value, float) else value for value in hyperparameters.values())
    return ", ".join(f"{name} {text}" for name, text in zip(hyperparameters, texts, strict=True))
