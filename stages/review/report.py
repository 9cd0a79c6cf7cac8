"""What a change did to the metrics, for a pull request's reviewer: `python -m stages.review.report BASE`.

The verdict first, then the params and metrics that changed, the pictures, and whether the committed metrics
belong to the committed code. DVC compares the working tree with BASE: no checkout, training or commit.
"""

import argparse
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from stages.base import console
from stages.base.files import read_json, replacing
from stages.review import pictures
from stages.review.commands import dvc, run, succeeds

# The metrics to decide by, in order: file and key -> whether more (1), less (-1) or neither (0) is better.
# `*` is any name, of a hyperparameter or the score; all other metrics are folded away, with no direction.
HEADLINES = {
    "comparison.verdict": 0,
    "comparison.superior": 0,
    "comparison.margin": 0,
    "comparison.parameters.ratio": 1,
    "comparison.test_*.difference": 1,
    "comparison.test_*.low": 1,
    "comparison.test_*.high": 0,  # which a wider interval raises too
    "retrain.hyperparameters.*": 0,
    "retrain.parameters": -1,
    "retrain.test_loss.mean": -1,
    "retrain.test_*.mean": 1,
    "tune.best.score": 1,
    "tune.score": 0,
    "tune.failed_trials": -1,
    "tune.trials": 0,
}
MISSING = ("deleted", "not in cache")  # what DVC calls a file that is not there
MARKER = "<!-- metrics report -->"
ONE_LOOK = (
    "The test figures are fair for one network that was chosen without them. The best of ten equally good "
    "networks looks superior in 14 % of simulated cases, a single one in 2.6 %: to choose among several "
    "branches, go by the validation scores in tune.json, <code>best.score</code> of the best trial and "
    "<code>score</code> of the chosen network."
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
        return next((pattern for pattern in HEADLINES if fnmatchcase(name, pattern)), "")

    @property
    def numeric(self) -> bool:
        """Whether it was and is a number."""
        return {type(self.old), type(self.new)} <= {int, float}

    def meaning(self, sign: int = 1) -> str:
        """`better`, `worse` or nothing, where a direction is better; `sign` is that of the search's score."""
        if not self.numeric or self.old == self.new:
            return ""
        direction = HEADLINES.get(self.headline, 0) * (sign if self.key == "best.score" else 1)
        return {1: "better", -1: "worse", 0: ""}[direction * (1 if self.new > self.old else -1)]

    @property
    def cells(self) -> list[str]:
        """File, key, old, new and difference, for people."""
        difference = shown(self.new - self.old, sign="+") if self.numeric else ""
        return [Path(self.file).name, self.key, shown(self.old), shown(self.new), difference]


@dataclass
class Report:
    """What there is to say.

    `notes` say what is missing; `sign` is -1 if less of the search's score is better, 0 if objectives differ.
    """

    base: str
    summary: str = ""
    committed: bool = True
    stale: list[str] = field(default_factory=list)
    params: list[Change] = field(default_factory=list)
    metrics: list[Change] = field(default_factory=list)
    sign: int = 1
    pictures: dict[str, bytes] = field(default_factory=dict)
    page: str = ""
    notes: list[str] = field(default_factory=list)


def main() -> None:
    description = __doc__.partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m stages.review.report", description=description)
    base_help = "a revision or experiment to compare with; default: where this branch left main"
    parser.add_argument("base", nargs="?", help=base_help)
    output_help = "write FOLDER/report.md, its pictures and plots.html; default: print"
    parser.add_argument("--output", metavar="FOLDER", help=output_help)
    pictures_url_help = "link to URL in place of showing the pictures of FOLDER"
    parser.add_argument("--pictures-url", metavar="URL", help=pictures_url_help)
    check_help = "only say which stages have metrics that are out of date; status 1"
    parser.add_argument("--check", action="store_true", help=check_help)
    arguments = parser.parse_args()
    if not Path("dvc.yaml").is_file():
        raise console.UserError("dvc.yaml is missing; run from the top folder of the repository")
    if arguments.check:
        if stale := stale_stages():
            raise console.UserError(f"metrics of {', '.join(stale)} are out of date; run `dvc repro`")
        return
    report = collect(arguments.base, draw=arguments.output is not None)
    if arguments.output is None:
        print(markdown(report, {}))
    else:
        folder = Path(arguments.output)
        with suppress(OSError):
            text = (folder / "report.md").read_text(encoding="utf-8")
            if text.startswith(MARKER):  # an older report, whose pictures go
                for old in [*folder.glob("*.png"), folder / "plots.html"]:
                    old.unlink(missing_ok=True)
        names = {plot: pictures.file_name(plot) for plot in report.pictures}
        files = {names[plot]: picture for plot, picture in report.pictures.items()}
        if report.page:
            files["plots.html"] = report.page.encode()
        files["report.md"] = markdown(report, names, arguments.pictures_url).encode()
        for name, content in files.items():
            with replacing(folder / name) as temporary:
                temporary.write_bytes(content)


def collect(base: str | None, *, draw: bool) -> Report:
    """Return the report against `base`; what cannot be had is left out, with a note."""
    report = Report("")
    with noted(report):
        report.stale = stale_stages()
    report.committed = not run("git", "status", "--porcelain", "--", "metrics", "dvc.lock")
    report.summary = pictures.conclusion()
    if not report.summary:
        reason = "metrics/comparison.json is missing or not whole"
        report.notes.append(f"There is no comparison: {reason}. `dvc repro` makes it.")
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
        report.params, report.metrics = changes(commit)
        differ = any(change.key == "objective" for change in report.metrics)
        objective = read_json(Path("metrics/tune.json")).get("objective")
        report.sign = 0 if differ else -1 if objective == "val_loss" else 1
    if draw and (report.params or report.metrics):
        with noted(report):
            text = json.dumps(pictures.plots("diff", commit)).replace(commit, "before")
            plots = json.loads(text.replace('"workspace"', '"now"'))
            report.pictures, report.page = pictures.draw(plots), pictures.page(plots, report.summary)
    return report


@contextmanager
def noted(report: Report) -> Iterator[None]:
    """Turn a mistake inside the block into a note, so that the rest can still be said."""
    try:
        yield
    except (console.UserError, ValueError) as error:
        report.notes.append(str(error))


def resolve(base: str | None) -> tuple[str, str]:
    """Return name and commit of `base`, or of where this branch left main; UserError if there is none."""
    if base is None:
        for main in ("origin/main", "main"):
            if succeeds("git", "rev-parse", "--verify", "--quiet", f"{main}^{{commit}}"):
                if not succeeds("git", "merge-base", main, "HEAD"):
                    problem = f"this branch and {main} have no common commit here"
                    raise console.UserError(f"{problem}; `git fetch --unshallow`")
                return f"the merge base with {main}", run("git", "merge-base", main, "HEAD")
        raise console.UserError("there is no branch main here; name a revision, or `git fetch origin main`")
    if base.startswith("-") or not succeeds("git", "rev-parse", "--verify", "--quiet", f"{base}^{{commit}}"):
        experiments = run("git", "for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{base}").split()
        if len(experiments) == 1:
            return base, experiments[0]
        way_out = "`git fetch`, or name another revision"
        if run("git", "rev-parse", "--is-shallow-repository") == "true":
            way_out = "this clone is shallow; `git fetch --unshallow`"
        raise console.UserError(f"{base} is no revision that is known here; {way_out}")
    return base, run("git", "rev-parse", "--verify", f"{base}^{{commit}}")


def changes(commit: str) -> tuple[list[Change], list[Change]]:
    """Return the params and metrics that `dvc exp diff` finds changed from `commit` to the working tree."""
    differences = json.loads(dvc("exp", "diff", commit, "--json") or "{}")
    changed: dict[str, list[Change]] = {"params": [], "metrics": []}
    for kind, rows in changed.items():
        for file, keys in sorted(differences.get(kind, {}).items()):
            for key, values in sorted(keys.items()):  # DVC's own order is another in each run
                rows.append(Change(file, key, values.get("old"), values.get("new")))
    return changed["params"], changed["metrics"]


def stale_stages() -> list[str]:
    """Return the stages whose code, params or committed outputs are not those of dvc.lock.

    What lies in data/ says nothing, since it may be missing or another branch's: there, dvc.lock has to agree
    with itself, so that each stage used what the stage before it made.
    """
    lock = Path("dvc.lock")
    content = yaml.safe_load(lock.read_text(encoding="utf-8")) if lock.is_file() else {"stages": {}}
    deps, outs = (
        {
            stage: {entry["path"]: entry.get("md5") for entry in entries.get(kind, [])}
            for stage, entries in content["stages"].items()
        }
        for kind in ("deps", "outs")
    )
    made = {path: md5 for files in outs.values() for path, md5 in files.items()}
    stale = []

    def says_nothing(stage: str, file: str, how: object) -> bool:
        known = stage not in deps or file in deps[stage] | outs[stage]
        return file.startswith("data/") and known and (file in made or how in MISSING)

    for stage, entries in json.loads(dvc("status", "--json") or "{}").items():
        for entry in entries:  # a text such as "changed command", or the files of a kind
            kinds = entry.values() if isinstance(entry, dict) else [{entry: entry}]
            if not all(says_nothing(stage, file, how) for files in kinds for file, how in files.items()):
                stale.append(stage)
    for stage, used in deps.items():
        if any(made.get(path, md5) != md5 for path, md5 in used.items()):
            stale.append(stage)
    return list(dict.fromkeys(stale))


def markdown(report: Report, names: dict[str, str], pictures_url: str | None = None) -> str:
    """Return `report` as Markdown; `names` are its pictures' files, at `pictures_url` if not beside it."""
    parts = [MARKER, f"**{escaped(report.summary)}**" if report.summary else ""]
    parts += [f"> [!WARNING]\n> {escaped(line)}" for line in warnings(report)]
    parts += [f"_{escaped(note)}_" for note in report.notes]
    if not report.params and not report.metrics:
        parts.append(f"No param and no metric changed against {code(report.base)}." if report.base else "")
        return "\n\n".join(filter(None, parts)) + "\n"
    order = list(HEADLINES)
    headlines = [change for change in report.metrics if change.headline]
    headlines.sort(key=lambda change: (order.index(change.headline), change.key))
    machine = [change for change in report.metrics if "seconds" in change.key]
    others = [change for change in report.metrics if change not in headlines and change not in machine]
    parts += [f"Compared with {code(report.base)}:", table(report.params, "Param")]
    parts.append(table(headlines, "Metric", report.sign))
    if any("comparison.test_" in change.headline for change in headlines):
        parts.append(ONE_LOOK)
    for title, rows in (("Other metrics", others), ("Decided by the machine that ran it", machine)):
        if rows:
            summary = f"<details><summary>{title} ({len(rows)})</summary>"
            parts += [summary, table(rows, "Metric", report.sign), "</details>"]
    if names and pictures_url:
        parts.append(f"Pictures of the change: [{len(names)} PNG files]({pictures_url}).")
    else:
        parts += [f"![{escaped(plot)}]({name})" for plot, name in names.items()]
    return "\n\n".join(filter(None, parts)) + "\n"


def table(rows: list[Change], title: str, sign: int | None = None) -> str:
    """Return `rows` as a Markdown table, nothing for none; with change and meaning if there is a `sign`."""
    if not rows:
        return ""
    lines = [["File", title, "Before", "Now", "Change", ""], ["---"] * 6]
    lines += [[*map(code, row.cells), row.meaning(sign or 0)] for row in rows]
    return "\n".join(f"| {' | '.join(line[: 4 if sign is None else 6])} |" for line in lines)


def warnings(report: Report) -> Iterator[str]:
    """What a reviewer must know before the figures."""
    if report.stale:
        stages = ", ".join(report.stale)
        yield f"Metrics of {stages} are out of date: run `dvc repro` and commit dvc.lock and metrics/."
    if not report.committed:
        caveat = "On a machine of another kind, stages that did not change may differ in their last digits"
        yield f"These metrics are not committed: they are of a run in this working tree. {caveat} too."


def shown(value: object, sign: str = "") -> str:
    """Return a value for people: numbers with at most five digits after the point."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:{sign}.5f}".rstrip("0").rstrip(".")
    return f"{value:{sign}}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def escaped(value: str) -> str:
    """Return `value` as Markdown that shows it: no line break, each sign with a meaning as its number."""
    meaningful = r"[^\w\s.,:;%+\-/'=()^]|(?<![^\W_])_|_(?![^\W_])"
    return re.sub(meaningful, lambda match: f"&#{ord(match[0])};", " ".join(value.split()))


def code(value: str) -> str:
    """Return `value` as code, where a name after @ notifies nobody."""
    return f"<code>{escaped(value)}</code>" if value else ""


if __name__ == "__main__":
    console.run(main)
