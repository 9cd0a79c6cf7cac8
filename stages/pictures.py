"""The plots of dvc.yaml as PNG files, drawn without a browser or a network; `python -m stages.pictures` draws the README's.

The specifications come from DVC, which fills the templates in .dvc/plots; vl-convert draws them as a browser would.
"""

import json
import re
from pathlib import Path

import vl_convert

from stages import console
from stages.commands import dvc
from stages.files import replacing

README_PICTURES = {"metrics/plots/trials.csv": "docs/trials.png", "training accuracy": "docs/training.png"}
_VEGA_LITE = "5.20"
_SCALE = 1.5


def main() -> None:
    drawn = draw(plots("show"))
    for plot, path in README_PICTURES.items():
        with replacing(path) as temporary:
            temporary.write_bytes(drawn[plot])


def plots(*command: str) -> dict[str, dict]:
    """Return the Vega-Lite specification of each plot that `dvc plots COMMAND` has, by the plot's name.

    Raises:
        UserError: DVC could not make them.
    """
    found = json.loads(dvc("plots", *command, "--json")).get("data", {})
    specifications = {name: entry["content"] for name, entries in found.items() for entry in entries if entry["type"] == "vega"}
    return {name: json.loads(content) if isinstance(content, str) else content for name, content in specifications.items()}


def draw(specifications: dict[str, dict]) -> dict[str, bytes]:
    """Return each specification as a PNG picture on white, so that it can be read on a dark page too."""
    drawn = {}
    for name, specification in specifications.items():
        revisions = {row.get("rev") for row in specification.get("data", {}).get("values", [])}
        color = specification.get("encoding", {}).get("color")
        if color and len(revisions) == 1:
            color["legend"] = None
        specification |= {"background": "white", "padding": 12}
        drawn[name] = vl_convert.vegalite_to_png(specification, vl_version=_VEGA_LITE, scale=_SCALE)
    return drawn


def file_name(plot: str) -> str:
    """Return a name for the picture of `plot`: letters, digits and hyphens."""
    return re.sub("[^a-z0-9]+", "-", Path(plot).with_suffix("").as_posix().lower()).strip("-") + ".png"


if __name__ == "__main__":
    console.run(main)
