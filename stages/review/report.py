"""What a change did to the metrics, for a pull request's reviewer; nothing is trained or checked out."""

import argparse
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from stages.base import console
from stages.base.files import read_json, replacing
from stages.review import pictures
from stages.review.commands import asked, dvc, run

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
WORST_FIRST = ("inferior", "inconclusive", "non_inferior", "no", "yes")
MARKER = "<!-- metrics report -->"
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
        return next((pattern for pattern in HEADLINES if fnmatchcase(name, pattern)), "")

    @property
    def figure(self) -> tuple[str, ...]:
        """What it says, wherever it stands: the chosen network's figures are in several files and blocks."""
        kinds = "mean|tuned|baseline"  # with std and candidates, equal numbers of two blocks may be chance
        name = re.sub(rf".*\.(?!({kinds}|std|candidates)$)|\.({kinds})$", "", self.key)
        return name, shown(self.old), shown(self.new)

    @property
    def difference(self) -> float | None:
        """How much more it is, None if it is no number."""
        return self.new - self.old if {type(self.old), type(self.new)} <= {int, float} else None

    def meaning(self, directions: dict[str, int | str]) -> str:
        """Return `better`, `worse`, or why neither is said; nothing for a metric that is no headline."""
        direction = directions.get(self.headline, "")
        if isinstance(direction, str):
            return direction
        more = self.difference
        if self.old in WORST_FIRST and self.new in WORST_FIRST:
            more = WORST_FIRST.index(self.new) - WORST_FIRST.index(self.old)
        return "not in both" if more is None else "better" if more * direction > 0 else "worse"


@dataclass
class Report:
    """What there is to say: `scores` decide, `notes` say what is missing, `files` are pictures."""

    base: str = ""
    summary: str = ""
    warnings: list[str] = field(default_factory=list)
    scores: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    params: list[Change] = field(default_factory=list)
    metrics: list[Change] = field(default_factory=list)
    directions: dict[str, int | str] = field(default_factory=HEADLINES.copy)
    files: dict[str, bytes] = field(default_factory=dict)


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
        if stale := ", ".join(stale_stages()):
            raise console.UserError(f"metrics of {stale} are out of date; run `dvc repro`")
        return
    report = collect(arguments.base, draw=arguments.output is not None)
    if arguments.output is None:
        print(markdown(report), end="")
        return
    path = arguments.output / "report.md"
    if path.is_file() and path.read_bytes().startswith(MARKER.encode()):  # an older report, whose pictures go
        for old in [*path.parent.glob("*.png"), path.with_name("plots.html")]:
            old.unlink(missing_ok=True)
    text = f"{MARKER}\n\n{markdown(report, arguments.pictures_url)}"
    for name, content in {**report.files, path.name: text.encode()}.items():
        with replacing(path.with_name(name)) as temporary:
            temporary.write_bytes(content)
    print(f"report: wrote {path} and {len(report.files)} files of pictures beside it")


def collect(base: str | None, *, draw: bool) -> Report:
    """Return the report against `base`; what cannot be had is left out, with a note."""
    report = Report(summary=pictures.conclusion())
    with noted(report):
        if stale := ", ".join(stale_stages()):
            report.warnings.append(f"Metrics of {stale} are out of date: run `dvc repro`, and commit.")
    if run("git", "status", "--porcelain", "--", "metrics", "dvc.lock"):
        report.warnings.append("These metrics are not committed: their last digits are this machine's.")
    with noted(report):
        report.scores.extend(scores())
    with noted(report):
        against, commit = resolve(base)
        for name in ("dvc.yaml", "metrics"):
            if not run("git", "ls-tree", commit, name):
                report.notes.append(f"{against} has no {name}: what would be there is new.")
        report.params, report.metrics = changes(commit)
        report.base = against
        if read_json(Path("metrics/tune.json")).get("objective") == "val_loss":
            report.directions["tune.best.score"] = -1
        for key, headline in (("margin", "comparison.verdict"), ("objective", "tune.best.score")):
            if any(change.key == key for change in report.metrics):
                report.directions[headline] = f"of another {key}"
        if draw and (report.params or report.metrics):
            text = json.dumps(pictures.plots("diff", commit)).replace(commit, "before")
            plots = json.loads(text.replace('"workspace"', '"now"'))
            report.files = {pictures.file_name(plot): png for plot, png in pictures.draw(plots).items()}
            report.files["plots.html"] = pictures.page(plots, report.summary).encode()
    return report


@contextmanager
def noted(report: Report) -> Iterator[None]:
    """Turn a mistake inside the block into a note, so that the rest can still be said."""
    try:
        yield
    except (console.UserError, ValueError) as error:
        report.notes.append(f"{error}.")


def refuse_conflicts() -> None:
    """Raise UserError for the files in which a merge left both sides: there is nothing to report on."""
    names = ("params.yaml", "dvc.yaml", "pyproject.toml", "dvc.lock")
    files = [*map(Path, names), *sorted(Path("metrics").rglob("*.*"))]
    torn = [str(file) for file in files if file.is_file() and b"\n<<<<<<< " in b"\n" + file.read_bytes()]
    if torn:
        way_out = "`git checkout HEAD -- dvc.lock metrics` and `dvc repro`"
        way_out = f"edit {torn[0]}, then {way_out}" if torn[0] in names[:3] else way_out
        raise console.UserError(f"a merge left conflicts in {', '.join(torn)}; {way_out}")


def scores() -> Iterator[str]:
    """Yield the scores that decide: on the test examples, and in the search; UserError if there are none."""
    try:
        compared, tune = (read_json(Path(f"metrics/{name}.json")) for name in ("comparison", "tune"))
        for name, score in compared.items():
            if name.startswith("test_"):
                networks = f"baseline {shown(score['baseline'])}, tuned {shown(score['tuned'])}"
                low, more, high = (shown(score[key], "+") for key in ("low", "difference", "high"))
                verdict = f"margin {shown(compared['margin'])}: {compared['verdict']}"
                yield f"{name}: {networks}, difference {more} (95 % interval {low} to {high}), {verdict}"
        score, best, error = tune["score"], tune["best"]["score"], tune["best"]["standard_error"]
        difference = abs(best - score)
        apart = f"difference {shown(difference)}, {'more than' if difference > error else 'within'}"
        networks = f"chosen network {shown(score)}, best trial {shown(best)} (standard error {shown(error)})"
        before = shown(tune["baseline"]["score"])
        yield f"{tune['objective']} in the search: {networks}, {apart} one standard error; baseline {before}"
    except (LookupError, TypeError, AttributeError):
        raise console.UserError("a file in metrics/ is not whole; `dvc repro` makes it") from None


def resolve(base: str | None) -> tuple[str, str]:
    """Return name and commit of `base`, else main; of a branch, where this one left it; UserError if none."""
    verify = ("git", "rev-parse", "--verify", "--quiet", "--end-of-options")
    name = base or next((main for main in ("origin/main", "main") if asked(*verify, main)), "main")
    commit = asked(*verify, f"{name}^{{commit}}")
    full = asked("git", "rev-parse", "--symbolic-full-name", name)
    if full.startswith(("refs/heads/", "refs/remotes/")) and name != "HEAD":
        # What the branch has got since would look like a change that is taken back here
        commit, name = asked("git", "merge-base", full, "HEAD"), f"the merge base with {name}"
    experiments = asked("git", "for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{name}").split()
    if not commit and len(experiments) != 1:
        way_out = "`git fetch`, in a shallow clone with --unshallow, or name another revision"
        raise console.UserError(f"nothing to compare with: {name} is not known here; {way_out}")
    return name, commit or experiments[0]


def changes(commit: str) -> Iterator[list[Change]]:
    """Yield params and metrics that `dvc exp diff` finds changed from `commit` to the working tree."""
    differences = json.loads(dvc("exp", "diff", commit, "--json") or "{}")
    for kind in ("params", "metrics"):
        yield [
            Change(file, key, values.get("old"), values.get("new"))
            for file, keys in sorted(differences.get(kind, {}).items())
            for key, values in sorted(keys.items())  # DVC's own order is another in each run
        ]


def stale_stages() -> list[str]:
    """Return the stages whose code, params or committed outputs are not those of dvc.lock.

    Data may be missing or another branch's; dvc.lock has to agree with itself on what was made and used.
    """
    stale = []
    for stage, entries in json.loads(dvc("status", "--json") or "{}").items():
        for entry in entries:  # a text such as "changed command", or the files of each kind
            files = [file for kind in entry.values() for file in kind] if isinstance(entry, dict) else [entry]
            if not all(file.startswith("data/") for file in files):
                stale.append(stage)
    lock = Path("dvc.lock")
    stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"] if lock.is_file() else {}
    made = {out["path"]: out.get("md5") for stage in stages.values() for out in stage.get("outs", [])}
    for stage, locked in stages.items():
        if any(made.get(dep["path"], dep.get("md5")) != dep.get("md5") for dep in locked.get("deps", [])):
            stale.append(stage)
    return list(dict.fromkeys(stale))


def markdown(report: Report, pictures_url: str | None = None) -> str:
    """Return `report` as Markdown; its pictures are at `pictures_url` if not beside it."""
    parts = [f"**{escaped(report.summary)}**" if report.summary else ""]
    parts += [f"> [!WARNING]\n> {escaped(line)}" for line in report.warnings]
    parts.append("\n".join(f"- {escaped(line)}" for line in report.scores))
    parts += [f"_{escaped(note)}_" for note in report.notes]
    parts.append(ONE_LOOK if any("comparison.test_" in change.headline for change in report.metrics) else "")
    if report.params or report.metrics:
        parts += [f"Compared with {code(report.base)}:", *tables(report)]
    elif report.base:
        parts.append(f"No param and no metric changed against {code(report.base)}.")
    drawn = [name for name in report.files if name.endswith(".png")]
    if drawn and pictures_url:
        parts.append(f"Pictures of the change: [{len(drawn)} PNG files]({pictures_url}).")
    else:
        parts += [f"![{Path(name).stem}]({name})" for name in drawn]
    return "\n\n".join(filter(None, parts)) + "\n"


def tables(report: Report) -> Iterator[str]:
    """Yield what changed as tables: params, headlines, and folded the other metrics, each figure once."""
    headlines = [change for pattern in HEADLINES for change in report.metrics if change.headline == pattern]
    others = [change for change in report.metrics if not change.headline]
    first = {change.figure: change for change in reversed([*report.params, *headlines, *others])}
    others = [change for change in others if first[change.figure] is change]
    machine = [change for change in others if "seconds" in change.key]
    others = [change for change in others if change not in machine]
    titles = ("", "", "Other metrics", "Decided by the machine that ran it")
    for title, rows in zip(titles, (report.params, headlines, others, machine), strict=True):
        lines = [["File", "Name", "Before", "Now", "Change", ""], ["---"] * 6]
        for row in rows:
            cells = (Path(row.file).name, row.key, shown(row.old), shown(row.new), shown(row.difference, "+"))
            lines.append([*map(code, cells), row.meaning(report.directions)])
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        folded = f"<details><summary>{title} ({len(rows)})</summary>\n\n{text}\n\n</details>"
        yield (folded if title else text) if rows else ""


def shown(value: object, sign: str = "") -> str:
    """Return a value for people: numbers with at most five digits after the point."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:{sign}.5f}".rstrip("0").rstrip(".")
    return "-" if value is None else str(value)


def escaped(value: str) -> str:
    """Return `value` as Markdown that shows it in one line; what is in backticks stays code."""
    meaningful = r"(`[^`]+`)|([\\`*<>\[\]&~|]|(?<![^\W_])_|_(?![^\W_]))"
    text = re.sub(meaningful, lambda found: found[1] or f"\\{found[2]}", " ".join(value.split()))
    return text.replace("@", "&#64;")  # a name after it would be notified


def code(value: str) -> str:
    """Return `value` as code, where a name after @ notifies nobody; in HTML if backticks would break."""
    value = " ".join(value.split())
    if re.search(r"[`|\\]", value):
        return f"<code>{re.sub(r'[^a-zA-Z0-9 ]', lambda found: f'&#{ord(found[0])};', value)}</code>"
    return f"`{value}`" if value else ""


if __name__ == "__main__":
    console.run(main)
