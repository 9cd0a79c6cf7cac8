"""The JSON Schema of params.yaml, for editors to complete and check it; `python -m stages.review.schema` writes it."""

from pathlib import Path

from stages.base import console
from stages.base.files import write_json
from stages.base.params import Params

PATH = Path("params.schema.json")


def main() -> None:
    write_json(PATH, schema())


def schema() -> dict:
    """Return the schema of stages/base/params.py: types, bounds and choices; what no schema can say, `params.load` checks."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Params.model_json_schema()}


if __name__ == "__main__":
    console.run(main)
