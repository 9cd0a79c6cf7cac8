"""What a change did to the metrics, for the reviewer of a pull request: `python -m stages.report BASE`.

The verdict first, then the params that changed, the metrics that changed, the pictures, and whether the committed metrics
belong to the committed code. DVC compares the working tree with BASE; nothing is checked out, trained or committed.
"""

import argparse
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from stages import console, pictures
from stages.commands import dvc, run, succeeds
from stages.files import read_json, replacing

FILES = ("comparison", "retrain", "tune", "baseline", "prepare")  # in the order of their interest
HIGHER = re.compile(r"(^|[._])(accuracy|score|difference|low|high|ratio)(\.|$)|test_accuracy\.(mean|tuned)")
LOWER = re.compile(r"loss|parameters|multiply_adds|bytes|seconds|failed_trials")
NEITHER = re.compile(r"std$|target_accuracy$|margin$|(^|\.)standard_error$|p_value$|baseline$")
MACHINE = re.compile("seconds")
HEADLINE = re.compile(
    r"comparison\.(verdict|superior|margin|parameters\.ratio|test_accuracy\.(difference|low|high))$"
    r"|retrain\.(?!kept|train|seconds)(?!.*std$)|tune\.(score|trials)$"
)
MISSING = ("deleted", "not in cache")  # what DVC calls a file that is not there
MARKER = "<!-- metrics report -->"


@dataclass
class Change:
    """One param or metric: its file and key, what it was at BASE and what it is, None for nothing.

    `objective` is that of the search, which says what a better score is; None if it changed.
    """

    file: str
    key: str
    old: object
    new: object
    objective: str | None = "val_accuracy"

    @property
    def numeric(self) -> bool:
        """Whether it was and is a number."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in (self.old, self.new))

    @property
    def meaning(self) -> str:
        """`better`, `worse` or nothing, where a direction is better than the other."""
        if not self.numeric or self.old == self.new or NEITHER.search(self.key):
            return ""
        if self.key.endswith("score"):
            sign = {"val_accuracy": 1, "val_loss": -1}.get(self.objective, 0)
        else:
            sign = 1 if HIGHER.search(self.key) else -1 if LOWER.search(self.key) else 0
        return {1: "better", -1: "worse", 0: ""}[sign * (1 if self.new > self.old else -1)]

    @property
    def cells(self) -> list[str]:
        """File, key, old, new, difference and meaning, for people."""
        difference = shown(self.new - self.old, sign="+") if self.numeric else ""
        return [Path(self.file).name, self.key, shown(self.old), shown(self.new), difference, self.meaning]


@dataclass
class Report:
    """What there is to say. `notes` are the clear lines about what could not be said."""

    base: str
    summary: str = ""
    committed: bool = True
    stale: list[str] = field(default_factory=list)
    params: list[Change] = field(default_factory=list)
    metrics: list[Change] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.report", description=__doc__.partition("\n")[0])
    parser.add_argument("base", nargs="?", help="a revision to compare with; default: where this branch left main")
    parser.add_argument("--format", choices=("markdown", "text"), default="markdown")
    parser.add_argument("--output", metavar="FOLDER", help="write FOLDER/report.md with its pictures; default: print, without")
    parser.add_argument("--pictures-url", metavar="URL", help="link to URL in place of showing the pictures of FOLDER")
    parser.add_argument("--check", action="store_true", help="only say which stages the committed metrics are not of; status 1")
    arguments = parser.parse_args()
    if not Path("dvc.yaml").is_file():
        raise console.UserError("dvc.yaml is missing; run from the top folder of the repository")
    if arguments.check:
        stale = stale_stages()
        if stale:
            raise console.UserError(f"the metrics are not of this code and these params: {', '.join(stale)}; `dvc repro`")
        return
    report = collect(arguments.base, draw=arguments.output is not None)
    if arguments.format == "text":
        print(text(report))
    elif arguments.output is None:
        print(markdown(report, {}))
    else:
        folder = Path(arguments.output)
        names = {plot: pictures.file_name(plot) for plot in report.pictures}
        for plot, name in names.items():
            with replacing(folder / name) as temporary:
                temporary.write_bytes(report.pictures[plot])
        with replacing(folder / "report.md") as temporary:
            temporary.write_text(markdown(report, names, arguments.pictures_url), encoding="utf-8")


def collect(base: str | None, *, draw: bool) -> Report:
    """Return the report against `base`; what cannot be had is left out, with a note."""
    report = Report(base or "")
    with noted(report):
        report.stale = stale_stages()
    report.committed = not run("git", "status", "--porcelain", "--", "metrics", "dvc.lock")
    try:
        report.summary = " ".join(read_json(Path("metrics/comparison.json"))["summary"])
    except (console.UserError, KeyError, TypeError):
        report.notes.append("There is no comparison: metrics/comparison.json is missing or not whole. `dvc repro` makes it.")
    try:
        report.base, commit = resolve(base)
    except console.UserError as error:
        report.notes.append(f"Nothing to compare with: {error}.")
        return report
    if not succeeds("git", "cat-file", "-e", f"{commit}:dvc.yaml"):
        report.notes.append(f"{report.base} has no dvc.yaml: all params and metrics are new.")
    elif not run("git", "ls-tree", commit, "metrics/"):
        report.notes.append(f"{report.base} has no metrics: all of them are new.")
    with noted(report):
        report.params = changes("params", commit)
    with noted(report):
        report.metrics = sorted(changes("metrics", commit), key=lambda c: (order(c.file), c.key != "verdict", c.key))
    if draw and (report.params or report.metrics):
        with noted(report):
            named = json.dumps(pictures.plots("diff", commit)).replace(commit, "before").replace('"workspace"', '"now"')
            report.pictures = pictures.draw(json.loads(named))
    return report


@contextmanager
def noted(report: Report) -> Iterator[None]:
    """Turn a mistake inside the block into a note, so that the rest can still be said."""
    try:
        yield
    except (console.UserError, ValueError) as error:
        report.notes.append(str(error))


def resolve(base: str | None) -> tuple[str, str]:
    """Return a name and the commit of `base`, or of where this branch left main; UserError if there is none."""
    if base is None:
        for main in ("origin/main", "main"):
            if succeeds("git", "rev-parse", "--verify", "--quiet", f"{main}^{{commit}}"):
                if not succeeds("git", "merge-base", main, "HEAD"):
                    raise console.UserError(f"this branch and {main} have no common commit here; `git fetch --unshallow`")
                return f"the merge base with {main}", run("git", "merge-base", main, "HEAD")
        raise console.UserError("there is no branch main here; name a revision, or `git fetch origin main`")
    if base.startswith("-") or not succeeds("git", "rev-parse", "--verify", "--quiet", f"{base}^{{commit}}"):
        shallow = run("git", "rev-parse", "--is-shallow-repository") == "true"
        way_out = "this clone is shallow; `git fetch --unshallow`" if shallow else "`git fetch`, or name another revision"
        raise console.UserError(f"{base} is no revision that is known here; {way_out}")
    return base, run("git", "rev-parse", "--verify", f"{base}^{{commit}}")


def changes(what: str, commit: str) -> list[Change]:
    """Return what `dvc params diff` or `dvc metrics diff` finds between `commit` and the working tree."""
    found = json.loads(dvc(what, "diff", commit, "--json") or "{}")
    entries = [(file, key, values) for file, keys in found.items() for key, values in keys.items()]
    objective = read_json(Path("metrics/tune.json")).get("objective") if what == "metrics" else None
    if any(key == "objective" for _, key, _ in entries):
        objective = None
    return [Change(file, key, values.get("old"), values.get("new"), objective) for file, key, values in entries]


def stale_stages() -> list[str]:
    """Return the stages whose code, params or committed outputs are not those of dvc.lock.

    Data that is missing, as in a fresh clone, is no change.
    """
    stale = []
    for stage, entries in json.loads(dvc("status", "--json") or "{}").items():
        for entry in entries:
            if not isinstance(entry, dict):  # such as "changed command"
                stale.append(stage)
                continue
            for files in entry.values():
                missing = {file for file, how in files.items() if file.startswith("data/") and how in MISSING}
                if not files or set(files) - missing:
                    stale.append(stage)
    return list(dict.fromkeys(stale))


def markdown(report: Report, names: dict[str, str], pictures_url: str | None = None) -> str:
    """Return `report` as Markdown; `names` are the files of its pictures, `pictures_url` where they are if not beside it."""
    parts = [MARKER, f"**{escaped(report.summary)}**" if report.summary else ""]
    parts += [f"> [!WARNING]\n> {escaped(line)}" for line in warnings(report)]
    parts += [f"_{escaped(note)}_" for note in report.notes]
    if not report.params and not report.metrics:
        parts.append(f"No param and no metric changed against {code(report.base)}." if report.base else "")
        return "\n\n".join(filter(None, parts)) + "\n"
    headlines, others, machine = split(report.metrics)
    parts.append(f"Compared with {code(report.base)}:")
    parts.append(table(report.params, "Param", with_meaning=False))
    parts.append(table(headlines, "Metric"))
    for title, rows in (("Other metrics", others), ("Decided by the machine that ran it", machine)):
        if rows:
            parts += [f"<details><summary>{title} ({len(rows)})</summary>", table(rows, "Metric"), "</details>"]
    if names and pictures_url:
        parts.append(f"Pictures of the change: [{len(names)} PNG files]({pictures_url}).")
    else:
        parts += [f"![{escaped(plot)}]({name})" for plot, name in names.items()]
    return "\n\n".join(filter(None, parts)) + "\n"


def table(rows: list[Change], title: str, *, with_meaning: bool = True) -> str:
    """Return `rows` as a Markdown table, nothing for none."""
    if not rows:
        return ""
    columns = 6 if with_meaning else 4
    lines = [["File", title, "Before", "Now", "Change", ""], ["---"] * 6]
    lines += [[*map(code, row.cells[:-1]), row.meaning] for row in rows]
    return "\n".join(f"| {' | '.join(line[:columns])} |" for line in lines)


def text(report: Report) -> str:
    """Return `report` for a terminal."""
    parts = [report.summary, *(f"Warning: {line}" for line in warnings(report)), *report.notes]
    if not report.params and not report.metrics:
        parts.append(f"No param and no metric changed against {report.base}." if report.base else "")
        return "\n\n".join(filter(None, parts))
    parts.append(f"Compared with {report.base}:")
    for rows in filter(None, (report.params, *split(report.metrics))):
        cells = [[" ".join(cell.split()) for cell in row.cells] for row in rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        parts.append("\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells))
    return "\n\n".join(filter(None, parts))


def warnings(report: Report) -> list[str]:
    """What a reviewer must know before the figures."""
    found = []
    if report.stale:
        stages = ", ".join(report.stale)
        found.append(
            f"The metrics are not of this code and these params ({stages}): run `dvc repro`, commit dvc.lock and metrics/."
        )
    if not report.committed:
        found.append(
            "These metrics are not committed: they are of a run in this working tree. On a machine of another kind, stages "
            "that did not change may differ in their last digits too."
        )
    return found


def split(metrics: list[Change]) -> tuple[list[Change], list[Change], list[Change]]:
    """Return the metrics to decide by, all others that the result decides, and those that the machine decides."""
    decided = [change for change in metrics if not MACHINE.search(change.key)]
    headlines = [change for change in decided if HEADLINE.match(f"{Path(change.file).stem}.{change.key}")]
    others = [change for change in decided if change not in headlines]
    return headlines, others, [change for change in metrics if MACHINE.search(change.key)]


def order(file: str) -> int:
    """Return the place of a metrics file in the report."""
    stem = Path(file).stem
    return FILES.index(stem) if stem in FILES else len(FILES)


def shown(value: object, sign: str = "") -> str:
    """Return a value for people: numbers with at most five digits after the point."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:{sign}.5f}".rstrip("0").rstrip(".")
    return f"{value:{sign}}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def escaped(value: str) -> str:
    """Return `value` as Markdown that shows it: no line break, and each sign that could mean something as its number."""
    meaningful = r"[^\w\s.,:;%+\-/'=()^]|(?<![^\W_])_|_(?![^\W_])"
    return re.sub(meaningful, lambda match: f"&#{ord(match[0])};", " ".join(value.split()))


def code(value: str) -> str:
    """Return `value` as code, where a name after @ notifies nobody."""
    return f"<code>{escaped(value)}</code>" if value else ""


if __name__ == "__main__":
    console.run(main)
