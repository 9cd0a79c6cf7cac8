"""What a change did to the metrics, for a pull request's reviewer; nothing is trained or checked out."""

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
# `*` is any name, of a hyperparameter or the score; all other metrics are folded away, with no direction.
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
# A param or metric whose change makes a headline say nothing -> which one, and why
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
    """One param or metric: its file and key, what it was at BASE and what it is, None for nothing."""

    file: str
    key: str
    old: Any
    new: Any

    @property
    def headline(self) -> str:
        """Its key in `HEADLINES`, nothing for none."""
        name = f"{Path(self.file).stem}.{self.key}"
        return next((pattern for pattern in HEADLINES if fnmatch.fnmatchcase(name, pattern)), "")

    @property
    def figure(self) -> tuple[str, ...]:
        """What it says, wherever it stands: the chosen network's figures are in several files and blocks."""
        kinds = "mean|tuned|baseline"  # with std and candidates, equal numbers of two blocks may be chance
        name = re.sub(rf".*\.(?!({kinds}|std|candidates)$)|\.({kinds})$", "", self.key)
        # What is `epoch` in one file is `epochs` in another
        return name.removesuffix("s"), shown(self.old), shown(self.new)

    @property
    def difference(self) -> float | None:
        """How much more it is, None if it is no number."""
        return self.new - self.old if {type(self.old), type(self.new)} <= {int, float} else None

    def meaning(self, directions: dict[str, int | str], error: float | None = None) -> str:
        """Return `better`, `worse`, or why neither is said; nothing for a metric that is no headline.

        With the metric's standard `error`, it says how many of these the difference is.
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
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write report.md and pictures there")
    parser.add_argument("--pictures-url", metavar="URL", help="link to URL in place of showing the pictures")
    parser.add_argument("--check", action="store_true", help="only say which metrics are out of date")
    arguments = parser.parse_args()
    if not Path("dvc.yaml").is_file():
        raise console.UserError("dvc.yaml is missing; run from the folder that it is in")
    refuse_conflicts()
    if arguments.check:
        if stale := out_of_date():
            raise console.UserError(stale)
        return
    folder = arguments.output
    text, files = written(arguments.base, draw=folder is not None, pictures_url=arguments.pictures_url)
    if folder is None:
        print(text, end="")
        return
    path = folder / "report.md"
    if path.is_file() and path.read_bytes().startswith(MARKER.encode()):  # an older report, whose pictures go
        for old in [*folder.glob("*.png"), folder / "plots.html"]:
            old.unlink(missing_ok=True)
    for name, content in {**files, path.name: f"{MARKER}\n\n{text}".encode()}.items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(content)
    print(f"report: wrote {path} and {len(files)} files of pictures beside it")


def written(base: str | None, *, draw: bool, pictures_url: str | None) -> tuple[str, dict[str, bytes]]:
    """Return the report against `base` as Markdown and, if it is to `draw` them, its pictures by file name.

    It shows the pictures, or links to `pictures_url`. What cannot be had is left out, with a note.
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
    """Turn a mistake inside the block into a note, so that the rest can still be said."""
    try:
        yield
    except (console.UserError, ValueError) as error:
        notes.append(f"{error}.")


def refuse_conflicts() -> None:
    """Raise UserError for the files in which a merge left both sides: there is nothing to report on."""
    names = ("params.yaml", "dvc.yaml", "pyproject.toml", "dvc.lock")
    files = [*map(Path, names), *sorted(Path("metrics").rglob("*.*"))]
    torn = [str(file) for file in files if file.is_file() and b"\n<<<<<<< " in b"\n" + file.read_bytes()]
    if torn:
        edit = f"edit {torn[0]}, then " if torn[0] in names[:3] else ""
        way_out = f"{edit}`git checkout HEAD -- dvc.lock metrics` and `dvc repro`"
        raise console.UserError(f"a merge left conflicts in {', '.join(torn)}; {way_out}")


def scores(compared: dict, tune: dict) -> Iterator[str]:
    """Yield the scores that decide: on the test examples, and in the search; UserError if there are none."""
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
    """Yield params and metrics that `dvc exp diff` finds changed from `commit` to the working tree."""
    differences = json.loads(dvc("exp", "diff", commit, "--json"))
    for kind in ("params", "metrics"):
        yield [
            Change(file, key, values.get("old"), values.get("new"))
            for file, keys in sorted(differences[kind].items())
            for key, values in sorted(keys.items())  # DVC's own order is another in each run
        ]


def tables(base: str, params: list[Change], metrics: list[Change], tune: dict | None = None) -> Iterator[str]:
    """Yield what changed against `base`: params, headlines and, folded, other metrics; each figure once.

    `tune` is what tune.json holds now.
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
    """Return a value for people: numbers with at most five digits after the point, small ones with three."""
    if isinstance(value, float) and 0 < abs(value) < 0.0001:
        return f"{value:{sign}.3g}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:{sign}.5f}".rstrip("0").rstrip(".")
    return "-" if value is None else str(value)


def escaped(value: str) -> str:
    """Return `value` as Markdown that shows it in one line; what is in backticks stays code."""
    meaningful = r"(`[^`]+`)|([\\`*<>\[\]&~|]|(?<![^\W_])_|_(?![^\W_]))"
    text = re.sub(meaningful, lambda match: match[1] or f"\\{match[2]}", " ".join(value.split()))
    return text.replace("@", "&#64;")  # a name after it would be notified


def code(value: str) -> str:
    """Return `value` as code, where a name after @ notifies nobody; in HTML if backticks would break."""
    value = " ".join(value.split())
    if re.search(r"[`|\\]", value):
        return f"<code>{re.sub(r'[^a-zA-Z0-9 ]', lambda match: f'&#{ord(match[0])};', value)}</code>"
    return f"`{value}`" if value else ""


if __name__ == "__main__":
    console.run(main)
