"""Write params.schema.json, by which editors complete and check params.yaml.

Run as `python -m stages.review.schema`.
"""

from stages.base import console
from stages.base.files import write_json
from stages.base.params import Params


def schema() -> dict:
    """Return the JSON Schema of params.yaml: types, bounds and choices; `params.load` checks the rest."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Params.model_json_schema()}


if __name__ == "__main__":
    console.run(lambda: write_json("params.schema.json", schema()))
