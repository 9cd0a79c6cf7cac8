"""The plots of dvc.yaml as PNG files, drawn without a browser or a network; run as a module, it draws those of the README.

The specifications come from DVC, which fills the templates in .dvc/plots; vl-convert draws them as a browser would.
"""

import json
import re
from pathlib import Path

import vl_convert

from stages.base import console
from stages.base.files import replacing
from stages.review.commands import dvc

README_PICTURES = {"metrics/plots/space.csv": "docs/trials.png", "training accuracy": "docs/training.png"}
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
        if len({row.get("rev") for row in specification.get("data", {}).get("values", [])}) == 1:
            _without_legend_of_revisions(specification)
        specification |= {"background": "white", "padding": 12}
        drawn[name] = vl_convert.vegalite_to_png(specification, vl_version=_VEGA_LITE, scale=_SCALE)
    return drawn


def _without_legend_of_revisions(part: object) -> None:
    """Remove the legend of `rev`, wherever in a specification it is, which is noise where there is one revision."""
    for key, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        if key == "color" and isinstance(value, dict) and value.get("field") == "rev":
            value["legend"] = None
        _without_legend_of_revisions(value)


def file_name(plot: str) -> str:
    """Return a name for the picture of `plot`: letters, digits and hyphens."""
    return re.sub("[^a-z0-9]+", "-", Path(plot).with_suffix("").as_posix().lower()).strip("-") + ".png"


if __name__ == "__main__":
    console.run(main)
