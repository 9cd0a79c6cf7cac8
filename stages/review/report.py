"""Reports how a change affects the metrics, for the reviewer of a pull request. It trains nothing."""

import argparse
import fnmatch
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.base import console
from stages.base.files import read_json, replacing
from stages.review import pictures
from stages.review.commands import dvc, out_of_date, resolve, run

# The metrics to decide by, in order: file and key -> whether more (1) or less (-1) is better, or why neither.
# `*` is the name of a hyperparameter or of the score. All other metrics are folded, without a direction.
HEADLINES: dict[str, int | str] = {
    "comparison.verdict": 1,
    "comparison.superior": 1,
    "comparison.worse": -1,
    "comparison.parameters.ratio": 1,
    "comparison.test_*.difference": 1,
    "comparison.test_*.low": 1,
    "comparison.test_*.high": "a wider interval raises it too",
    "retrain.hyperparameters.*": "what was chosen",
    "retrain.parameters": -1,
    "retrain.test_loss.mean": -1,
    "retrain.test_*.mean": 1,
    "tune.best.score": 1,
    "tune.score": "a smaller network may score less",
    "tune.failed_trials": -1,
}
# If this param or metric changes, this headline cannot be compared, and why
INCOMPARABLE = {
    "margin": ("comparison.verdict", "of another margin"),
    "objective": ("tune.best.score", "of another objective"),
    "tune.max_epochs": ("tune.best.score", "of another max_epochs"),
    "prepare.validation_split": ("tune.best.score", "of other validation examples"),
    "seed": ("tune.best.score", "of other validation examples"),
}
WORST_FIRST = ("inferior", "inconclusive", "non_inferior", "no", "yes")
MARKER = "<!-- metrics report -->"
WARNING = "> [!WARNING]\n> "
ONE_LOOK = (
    "To choose among several branches, compare the scores in the search: the best test score is partly luck."
)


@dataclass
class Change:
    """A changed param or metric: file, key, value before and now; None if it did not exist."""

    file: str
    key: str
    old: Any
    new: Any

    @property
    def headline(self) -> str:
        """Its key in `HEADLINES`, or ""."""
        name = f"{Path(self.file).stem}.{self.key}"
        return next((pattern for pattern in HEADLINES if fnmatch.fnmatchcase(name, pattern)), "")

    @property
    def figure(self) -> tuple[str, ...]:
        """Name and values, to find duplicates: figures of the chosen network are in several files."""
        kinds = "mean|tuned|baseline"  # not std and candidates, which may be equal by chance
        name = re.sub(rf".*\.(?!({kinds}|std|candidates)$)|\.({kinds})$", "", self.key)
        # `epoch` in one file is `epochs` in another
        return name.removesuffix("s"), shown(self.old), shown(self.new)

    @property
    def difference(self) -> float | None:
        """The increase; None if it is not a number."""
        return self.new - self.old if {type(self.old), type(self.new)} <= {int, float} else None

    def meaning(self, directions: dict[str, int | str], error: float | None = None) -> str:
        """Return `better`, `worse`, or why neither can be said; "" for a metric that is not a headline.

        With the metric's standard `error`, the difference is also given in standard errors.
        """
        direction, more = directions.get(self.headline, ""), self.difference
        if direction and None in (self.old, self.new):
            return "not in both"
        if isinstance(direction, str):
            return direction
        if self.old in WORST_FIRST and self.new in WORST_FIRST:
            more = WORST_FIRST.index(self.new) - WORST_FIRST.index(self.old)
        if more is None:
            return "not in both"
        errors = f", by {abs(more / error):.1f} standard errors" if error else ""
        return f"{'better' if more * direction > 0 else 'worse'}{errors}"


def main() -> None:
    parser = argparse.ArgumentParser("python -m stages.review.report", description="What a change did")
    parser.add_argument("base", nargs="?", help="a revision, an experiment or a branch; default: main")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write report.md and pictures into it")
    parser.add_argument("--pictures-url", metavar="URL", help="link to URL instead of showing the pictures")
    parser.add_argument("--check", action="store_true", help="only check whether metrics are out of date")
    arguments = parser.parse_args()
    if not Path("dvc.yaml").is_file():
        raise console.UserError("dvc.yaml is missing; run from the folder that it is in")
    refuse_conflicts()
    if arguments.check:
        if stale := out_of_date():
            raise console.UserError(stale)
        return
    folder = arguments.output
    text, files = compose(arguments.base, draw=folder is not None, pictures_url=arguments.pictures_url)
    if folder is None:
        print(text, end="")
        return
    path = folder / "report.md"
    if path.is_file() and path.read_bytes().startswith(MARKER.encode()):  # remove an older report's pictures
        for old in [*folder.glob("*.png"), folder / "plots.html"]:
            old.unlink(missing_ok=True)
    for name, content in {**files, path.name: f"{MARKER}\n\n{text}".encode()}.items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(content)
    print(f"report: wrote {path} and {len(files)} files of pictures beside it")


def compose(base: str | None, *, draw: bool, pictures_url: str | None) -> tuple[str, dict[str, bytes]]:
    """Return the report against `base` as Markdown and, if `draw` is set, its pictures by file name.

    It shows the pictures, or links to `pictures_url`. Parts that fail are replaced by a note.
    """
    decided: list[str] = []
    notes: list[str] = []
    changed: list[str] = []
    tune: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    summary = pictures.conclusion()
    parts = [f"**{escaped(summary)}**" if summary else ""]
    with noted(notes):
        if stale := out_of_date():
            parts.append(f"{WARNING}The {escaped(stale)}, and commit.")
    if run("git", "status", "--porcelain", "--", "metrics", "dvc.lock"):
        parts.append(f"{WARNING}These metrics are not committed: their last digits are this machine's.")
    with noted(notes):
        compared, tune = (read_json(Path(f"metrics/{name}.json")) for name in ("comparison", "tune"))
        decided.extend(scores(compared, tune))
    with noted(notes):
        name, commit = resolve(base)
        for kept in ("dvc.yaml", "metrics"):
            if not run("git", "ls-tree", commit, kept):
                notes.append(f"{name} has no {kept}: what would be there is new.")
        params, metrics = changes(commit)
        changed.extend(tables(name, params, metrics, tune))
        if draw and (params or metrics):
            files = pictures.of_change(commit, summary)
    parts.append("\n".join(f"- {escaped(line)}" for line in decided))
    parts += [f"_{escaped(note)}_" for note in notes] + changed
    drawn = [name for name in files if name.endswith(".png")]
    if drawn and pictures_url:
        parts.append(f"Pictures of the change: [{len(drawn)} PNG files]({pictures_url}).")
    else:
        parts += [f"![{Path(name).stem}]({name})" for name in drawn]
    return "\n\n".join(filter(None, parts)) + "\n", files


@contextmanager
def noted(notes: list[str]) -> Iterator[None]:
    """Turn an error inside the block into a note, so that the rest of the report is still written."""
    try:
        yield
    except (console.UserError, ValueError) as error:
        notes.append(f"{error}.")


def refuse_conflicts() -> None:
    """Raise UserError if files have conflict markers of a merge."""
    names = ("params.yaml", "dvc.yaml", "pyproject.toml", "dvc.lock")
    files = [*map(Path, names), *sorted(Path("metrics").rglob("*.*"))]
    present = [file for file in files if file.is_file()]
    conflicted = [str(file) for file in present if b"\n<<<<<<< " in b"\n" + file.read_bytes()]
    if conflicted:
        edit = f"edit {conflicted[0]}, then " if conflicted[0] in names[:3] else ""
        advice = f"{edit}`git checkout HEAD -- dvc.lock metrics` and `dvc repro`"
        raise console.UserError(f"a merge left conflicts in {', '.join(conflicted)}; {advice}")


def scores(compared: dict, tune: dict) -> Iterator[str]:
    """Yield a line on the test scores and one on the scores in the search; UserError if they are missing."""
    try:
        for name in fnmatch.filter(compared, "test_*"):
            score = compared[name]
            networks = f"baseline {shown(score['baseline'])}, tuned {shown(score['tuned'])}"
            low, more, high = (shown(score[key], "+") for key in ("low", "difference", "high"))
            verdict = f"margin {shown(compared['margin'])}: {compared['verdict']}"
            yield f"{name}: {networks}, difference {more} (95 % interval {low} to {high}), {verdict}"
        score, best, error = tune["score"], tune["best"]["score"], tune["best"]["standard_error"]
        difference = abs(best - score)
        apart = f"difference {shown(difference)}, {'more than' if difference > error else 'within'}"
        networks = f"chosen network {shown(score)}, best trial {shown(best)} (standard error {shown(error)})"
        before = tune["baseline"]["score"]
        baseline = f"baseline {shown(before)}, chosen network {shown(score - before, '+')}"
        yield f"{tune['objective']} in the search: {networks}, {apart} one standard error; {baseline}"
    except (LookupError, TypeError, AttributeError):
        raise console.UserError("a file in metrics/ is not whole; `dvc repro` makes it") from None


def changes(commit: str) -> Iterator[list[Change]]:
    """Yield the changed params, then the changed metrics, from `commit` to the working tree."""
    differences = json.loads(dvc("exp", "diff", commit, "--json"))
    for kind in ("params", "metrics"):
        yield [
            Change(file, key, values.get("old"), values.get("new"))
            for file, keys in sorted(differences[kind].items())
            for key, values in sorted(keys.items())  # DVC's order varies from run to run
        ]


def tables(base: str, params: list[Change], metrics: list[Change], tune: dict | None = None) -> Iterator[str]:
    """Yield tables of what changed against `base`: params, headlines, and other metrics folded.

    Each figure is shown once. `tune` is the present content of tune.json.
    """
    tune = tune or {}
    objective, error = tune.get("objective"), tune.get("best", {}).get("standard_error")
    headlines = [change for pattern in HEADLINES for change in metrics if change.headline == pattern]
    if any("comparison.test_" in change.headline for change in headlines):
        yield ONE_LOOK
    changed = f"Compared with {code(base)}:"
    yield changed if params or metrics else f"No param and no metric changed against {code(base)}."
    directions = HEADLINES | ({"tune.best.score": -1} if objective == "val_loss" else {})
    changed_keys = {change.key for change in (*params, *metrics) if None not in (change.old, change.new)}
    directions |= dict(reason for key, reason in INCOMPARABLE.items() if key in changed_keys)
    if len({change.key for change in metrics if fnmatch.fnmatch(change.key, "test_*.difference")}) > 1:
        directions |= {f"comparison.{name}": "of another score" for name in ("verdict", "superior", "worse")}
    if "dataset" in changed_keys:
        directions = dict.fromkeys(HEADLINES, "of another data set")
    folded = [change for change in metrics if not change.headline]
    first = {change.figure: change for change in reversed([*params, *headlines, *folded])}
    folded = [change for change in folded if first[change.figure] is change]
    others = [change for change in folded if "seconds" not in change.key]
    machine = [change for change in folded if "seconds" in change.key]
    titles = ("", "", "Other metrics", "Decided by the machine that ran it")
    for title, rows in zip(titles, (params, headlines, others, machine), strict=True):
        lines = ["| File | Name | Before | Now | Change |  |", f"|{' --- |' * 6}"]
        for row in rows:
            cells = (Path(row.file).name, row.key, shown(row.old), shown(row.new), shown(row.difference, "+"))
            meaning = row.meaning(directions, error if row.headline == "tune.best.score" else None)
            lines.append(f"| {' | '.join(map(code, cells))} | {meaning} |")
        text = "\n".join(lines)
        if rows and title:
            text = f"<details><summary>{title} ({len(rows)})</summary>\n\n{text}\n\n</details>"
        if rows:
            yield text


def shown(value: object, sign: str = "") -> str:
    """Return a value as text; numbers have at most five decimals, small ones three significant digits."""
    if isinstance(value, float) and 0 < abs(value) < 0.0001:
        return f"{value:{sign}.3g}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:{sign}.5f}".rstrip("0").rstrip(".")
    return "-" if value is None else str(value)


def escaped(value: str) -> str:
    """Return `value` escaped as one line of Markdown; parts in backticks stay code."""
    meaningful = r"(`[^`]+`)|([\\`*<>\[\]&~|]|(?<![^\W_])_|_(?![^\W_]))"
    text = re.sub(meaningful, lambda match: match[1] or f"\\{match[2]}", " ".join(value.split()))
    return text.replace("@", "&#64;")  # else GitHub would notify the user of that name


def code(value: str) -> str:
    """Return `value` as inline code, where @name notifies nobody; as HTML if backticks would not work."""
    value = " ".join(value.split())
    if re.search(r"[`|\\]", value):
        return f"<code>{re.sub(r'[^a-zA-Z0-9 ]', lambda match: f'&#{ord(match[0])};', value)}</code>"
    return f"`{value}`" if value else ""


if __name__ == "__main__":
    console.run(main)
