"""Draws the plots of dvc.yaml as PNG files and as one page that works offline.

DVC fills in the templates in .dvc/plots; vl-convert draws them as a browser would. Run as a module, it writes
that page and docs/*.png.
"""

import json
import re
from contextlib import suppress
from pathlib import Path
from string import Template

import vl_convert

from stages.base import console
from stages.base.files import read_json, replacing
from stages.review.commands import dvc

PICTURES = {
    "metrics/plots/answer.csv": "docs/answer.png",  # in README.md
    "metrics/plots/trials.csv": "docs/trials.png",
    "training score": "docs/training.png",
}
# Plots of one network each, which "training loss" combines
IN_ONE = {f"metrics/plots/{network}.csv" for network in ("baseline", "retrain")}
PAGE = "dvc_plots/offline.html"
_VEGA_LITE = "5.20"


def main() -> None:
    specifications = plots(dvc("plots", "show", "--json"))
    drawn = draw(specifications)
    if missing := sorted(set(PICTURES) - set(drawn)):
        advice = "run `dvc repro` in the repository's top folder"
        raise console.UserError(f"there is no plot of {missing[0]}; {advice}")
    for plot, path in PICTURES.items():
        with replacing(path) as temporary:
            temporary.write_bytes(drawn[plot])
    with replacing(PAGE) as temporary:
        temporary.write_text(page(specifications, conclusion()), encoding="utf-8")
    print(f"pictures: {PAGE} shows all plots in any browser, also offline")


def plots(printed: str) -> dict[str, dict]:
    """Return the Vega-Lite specification of each plot by name, without `IN_ONE`; `PICTURES` come first.

    `printed` is what `dvc plots show --json` or `dvc plots diff --json` prints.
    """
    specifications: dict[str, dict] = {}
    for name, entries in json.loads(printed).get("data", {}).items():
        vega = [entry["content"] for entry in entries if entry["type"] == "vega"]
        specifications.update((name, content) for content in vega if name not in IN_ONE)
    for specification in specifications.values():
        if len({row.get("rev") for row in specification.get("data", {}).get("values", [])}) == 1:
            _hide_revisions(specification)
    return {name: specifications[name] for name in PICTURES if name in specifications} | specifications


def of_change(commit: str, summary: str) -> dict[str, bytes]:
    """Return the pictures of what changed from `commit` to the working tree and their page, by file name."""
    printed = dvc("plots", "diff", commit, "--json").replace(commit, "before").replace('"workspace"', '"now"')
    specifications = plots(printed)
    drawn = {file_name(plot): picture for plot, picture in draw(specifications).items()}
    return {**drawn, "plots.html": page(specifications, summary).encode()}


def conclusion() -> str:
    """Return the comparison's summary; "" if metrics/comparison.json is missing or incomplete."""
    with suppress(console.UserError, KeyError, TypeError):
        return " ".join(read_json(Path("metrics/comparison.json"))["summary"])
    return ""


def page(specifications: dict[str, dict], summary: str) -> str:
    """Return one self-contained HTML page with each specification as an interactive plot."""
    template = Path(".dvc/plots/page.html").read_text(encoding="utf-8")
    content = json.dumps({"summary": summary, "plots": specifications})
    content = content.replace("<", "\\u003c")  # else "</script>" in a text would end the script
    libraries = vl_convert.javascript_bundle(vl_version=_VEGA_LITE)  # type: ignore[call-arg] # its stub lacks a default
    return Template(template).substitute(libraries=libraries, content=content)


def draw(specifications: dict[str, dict]) -> dict[str, bytes]:
    """Return each specification as a PNG picture, on white so that it is readable on a dark page too."""
    frame = {"background": "white", "padding": 12}
    return {
        name: vl_convert.vegalite_to_png(specification | frame, vl_version=_VEGA_LITE, scale=1.5)
        for name, specification in specifications.items()
    }


def _hide_revisions(part: object) -> None:
    """Hide, in place, all legends and headers of `rev` in the specification of a single revision."""
    items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for key, value in items:
        if key in ("strokeDash", "facet") and isinstance(value, dict) and value.get("field") == "rev":
            value |= {"legend": None} if key == "strokeDash" else {"header": {"labelExpr": "''"}}
        _hide_revisions(value)


def file_name(plot: str) -> str:
    """Return the file name for the picture of `plot`, made of letters, digits and hyphens."""
    return re.sub("[^a-z0-9]+", "-", Path(plot).with_suffix("").as_posix().lower()).strip("-") + ".png"


if __name__ == "__main__":
    console.run(main)
