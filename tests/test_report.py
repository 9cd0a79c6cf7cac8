"""The report of a pull request: real branches, the real workflow's shell, real diffs of DVC."""

import io
import json
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from html import unescape
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from conftest import ENVIRONMENT
from markdown_it import MarkdownIt

from stages.base import console
from stages.review import commands, pictures, report
from stages.review.report import Change

ROOT = Path(__file__).parent.parent
WORKFLOWS = ROOT / ".github/workflows"
PNG = b"\x89PNG\r\n\x1a\n"


def html(markdown: str) -> str:
    return MarkdownIt("commonmark").enable("table").render(markdown)


def text(markdown: str) -> str:
    """The text that a reader of `markdown` sees, in one line."""
    return unescape(" ".join(re.sub("<.*?>", " ", html(markdown)).split()))


def run_report(project, *arguments: str, check: bool = True) -> str:
    """What the report prints when it runs in this process; `run_step` runs it in a new one."""
    with pytest.MonkeyPatch.context() as patch, io.StringIO() as printed:
        patch.chdir(project.folder)
        patch.setattr(sys, "argv", ["report", *arguments])
        with redirect_stdout(printed):
            try:
                console.run(report.main)
            except SystemExit as ended:
                if check:
                    raise
                return f"{ended}\n"
        return printed.getvalue()


@pytest.fixture(scope="module")
def pull_request(reproduced, experimented, tmp_path_factory):
    """A clone of the reproduced project with an experiment's branch, as its pull request's merge commit."""
    clone = type(reproduced)(tmp_path_factory.mktemp("pull-request") / "clone")
    subprocess.run(["git", "clone", "--quiet", str(reproduced.folder), str(clone.folder)], check=True)
    shutil.copytree(reproduced.folder / "data/trials", clone.folder / "data/trials")
    shutil.copytree(experimented.folder / ".dvc/cache", clone.folder / ".dvc/cache")
    ref = experimented.experiments()["random"]
    clone.run("git", "fetch", "--quiet", str(experimented.folder), f"{ref}:{ref}")
    clone.dvc("exp", "branch", "random", "random")
    clone.run("git", "switch", "--quiet", "--create", "merged", "main")
    (clone.folder / "NOTES").write_text("main went on")
    clone.commit()
    clone.run("git", "merge", "--quiet", "--no-ff", "--no-edit", "random")
    clone.dvc("checkout", "--quiet")
    clone.run("git", "tag", "start")
    return clone


@pytest.fixture
def merged(pull_request):
    lock = (pull_request.folder / "dvc.lock").read_bytes()
    yield pull_request
    changed = lock != (pull_request.folder / "dvc.lock").read_bytes()
    pull_request.run("git", "switch", "--quiet", "--force", "merged")
    pull_request.run("git", "reset", "--hard", "--quiet", "start")
    pull_request.run("git", "clean", "-dfq")
    if changed:
        pull_request.dvc("checkout", "--force", "--quiet")


def run_step(project, tmp_path) -> str:
    """Run the shell commands of the workflow's report step as GitHub does; return the job summary."""
    steps = yaml.safe_load((WORKFLOWS / "report.yml").read_text())["jobs"]["report"]["steps"]
    step = next(step for step in steps if step.get("name") == "Write the report")
    summary = tmp_path / "summary.md"
    done = subprocess.run(
        ["bash", "-e", "-c", step["run"]],
        cwd=project.folder,
        env={**project.environment, "GITHUB_STEP_SUMMARY": str(summary), "RUN": "https://example.org/runs/1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
    return summary.read_text()


def test_a_merged_branch_is_reported_by_the_workflows_own_shell(merged, tmp_path):
    (merged.folder / "report").mkdir(exist_ok=True)
    (merged.folder / "report/report.md").write_text(f"{report.MARKER}\n\nan older one\n")
    (merged.folder / "report/older.png").write_bytes(PNG)
    written = run_step(merged, tmp_path)
    comparison = json.loads((merged.folder / "metrics/comparison.json").read_text())
    lines = written.splitlines()
    assert lines[0] == report.MARKER
    assert html(lines[2]).strip() == f"<p><strong>{' '.join(comparison['summary'])}</strong></p>"
    assert [line.partition(":")[0] for line in lines[4:6]] == [
        "- test_accuracy",
        "- val_accuracy in the search",
    ]
    page = html(written)
    assert "<td><code>tune.strategy</code></td>" in page
    assert "<td><code>hyperband</code></td>\n<td><code>random</code></td>" in page
    assert "WARNING" not in written
    before, _, folded = written.partition("<details>")
    assert "seconds" not in before
    assert "seconds" in folded
    rows = re.findall(r"^\| `(\S+)` \| `(\S+)`", folded.partition("</details>")[0], re.M)
    assert rows == sorted(rows)
    assert len(rows) > 5
    assert not {
        ("tune.json", "strategy"),
        ("tune.json", "parameters"),
        ("comparison.json", "parameters.tuned"),
    } & set(rows)
    assert "(https://example.org/runs/1#artifacts)" in written
    drawn = sorted(path.name for path in (merged.folder / "report").glob("*.png"))
    assert drawn == [
        "metrics-plots-answer.png",
        "metrics-plots-confusion.png",
        "metrics-plots-space.png",
        "metrics-plots-trials.png",
        "training-loss.png",
        "training-score.png",
    ]
    assert all((merged.folder / "report" / name).read_bytes().startswith(PNG) for name in drawn)
    assert (merged.folder / "report/report.md").read_text() == written


def test_params_without_their_metrics_are_reproduced_and_marked(merged, elsewhere, tmp_path, monkeypatch):
    monkeypatch.setattr(merged, "environment", {**merged.environment, **elsewhere})
    merged.update_params({"retrain": {"from": "baseline"}})
    merged.commit()
    stale = run_report(merged, "--check", check=False)
    assert stale == "error: metrics of retrain are out of date; run `dvc repro`\n"
    printed = run_report(merged, "HEAD^1")
    assert "The metrics of retrain are out of date" in html(printed)
    written = run_step(merged, tmp_path)
    assert "out of date" not in written
    assert "These metrics are not committed" in written
    assert "<td><code>tune</code></td>\n<td><code>baseline</code></td>" in html(written)
    assert "the same hyperparameters" in written


def test_another_branchs_data_is_ignored_and_dvc_lock_has_to_agree_with_itself(merged):
    merged.run("git", "switch", "--quiet", "main")
    assert "data/tune/network.json" in merged.dvc("status")
    assert run_report(merged, "--check") == ""
    merged.update_params({"compare": {"margin": 0.5}})
    stale = run_report(merged, "--check", check=False)
    assert stale == "error: metrics of retrain are out of date; run `dvc repro`\n"
    merged.run("git", "checkout", "--quiet", ".")
    lock = yaml.safe_load((merged.folder / "dvc.lock").read_text())
    for dep in lock["stages"]["tune"]["deps"]:
        if dep["path"] == "data/prepared/training":
            dep["md5"] = "0" * 32 + ".dir"
    (merged.folder / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
    stale = run_report(merged, "--check", check=False)
    assert stale == "error: metrics of tune are out of date; run `dvc repro`\n"
    merged.run("git", "checkout", "--quiet", ".")
    dropout = {"type": "float", "min": 0.0, "max": 0.5, "when": {}}
    lock = yaml.safe_load((merged.folder / "dvc.lock").read_text())
    space = lock["stages"]["tune"]["params"]["params.yaml"]["tune.space"] | {"dropout": dropout}
    merged.update_params({"tune": {"space": space}})
    for order, reason in (
        (space, ""),
        (reversed(space), "tune.space was reordered, which changes the values drawn"),
    ):
        lock["stages"]["tune"]["params"]["params.yaml"]["tune.space"] = {name: space[name] for name in order}
        (merged.folder / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
        stale = run_report(merged, "--check", check=False)
        assert reason in stale
        assert bool(reason) == ("tune" in stale)


def test_a_space_in_another_order_is_out_of_date_and_has_to_be_forced(tmp_path, monkeypatch):
    """DVC sees no change, so `tune` has to be forced, unless DVC runs it for another reason."""
    space = {name: {"type": "float", "min": 0.0, "max": 0.5} for name in ("dropout", "learning_rate")}
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    settings["baseline"] = {"dropout": 0.2, "learning_rate": 0.001, "batch_size": 32}
    settings["tune"]["space"] = dict(reversed(space.items()))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    locked = {"stages": {"tune": {"params": {"params.yaml": {"tune.space": space}}}}}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(locked, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "dvc", lambda *_: "{}")
    assert commands.out_of_date() == (
        "metrics of tune (tune.space was reordered, which changes the values drawn) are out of date; "
        "run `dvc repro --force tune && dvc repro`"
    )
    changed = {"tune": [{"changed deps": {"stages/search": "modified"}}]}
    monkeypatch.setattr(commands, "dvc", lambda *_: json.dumps(changed))
    assert commands.out_of_date() == "metrics of tune are out of date; run `dvc repro`"


def test_a_branch_means_its_merge_base_and_main_is_the_default(merged):
    merged.run("git", "switch", "--quiet", "random")
    merged.dvc("checkout", "--force", "--quiet")
    printed = run_report(merged)
    assert "Compared with `the merge base with origin/main`:" in printed
    assert "<td><code>hyperband</code></td>\n<td><code>random</code></td>" in html(printed)
    merged.run("git", "switch", "--quiet", "main")
    merged.update_params({"compare": {"margin": 0.5}})
    merged.commit()  # a later change of main that the branch lacks
    merged.run("git", "switch", "--quiet", "random")
    printed = run_report(merged, "main")
    assert "Compared with `the merge base with main`:" in printed
    assert "compare.margin" not in printed
    assert "compare.margin" in run_report(merged, "main~0")
    merged.run("git", "tag", "--force", "exact", "main")
    assert "compare.margin" in run_report(merged, "exact")
    merged.run("git", "tag", "--delete", "exact")
    merged.run("git", "branch", "--quiet", "--force", "main", "main~1")


def test_the_scores_are_shown_where_nothing_changed(merged):
    printed = run_report(merged, "HEAD")
    compared, tune = merged.metrics("comparison"), merged.metrics("tune")
    lines = printed.strip().splitlines()
    assert lines[0].startswith("**")
    test = compared["test_accuracy"]
    for name, sign in (("baseline", ""), ("tuned", ""), ("difference", "+"), ("low", "+"), ("high", "+")):
        assert report.shown(test[name], sign) in lines[2]
    assert lines[2].endswith(f"margin {compared['margin']}: {compared['verdict']}")
    for score in (tune["score"], tune["best"]["score"], tune["best"]["standard_error"]):
        assert report.shown(score) in lines[3]
    more = abs(tune["best"]["score"] - tune["score"]) > tune["best"]["standard_error"]
    assert f", {'more than' if more else 'within'} one standard error; baseline " in lines[3]
    assert lines[5:] == ["No param and no metric changed against `HEAD`."]


@pytest.mark.parametrize("base", ["no-such-branch", "--help=x"])
def test_an_unknown_base_is_noted_and_the_summary_is_shown(merged, base):
    printed = run_report(merged, "--", base)
    assert printed.count("trained in") == 1
    assert f"nothing to compare with: {base} is not known here; git fetch" in text(printed)
    assert "changed against" not in printed


def test_an_experiment_can_be_compared_with(experimented):
    printed = run_report(experimented, "bayesian")
    assert "Compared with `bayesian`:" in printed
    assert "<td><code>bayesian</code></td>\n<td><code>hyperband</code></td>" in html(printed)


def test_a_name_of_two_experiments_is_refused(merged):
    commits = [merged.run("git", "rev-parse", name).stdout.strip() for name in ("HEAD", "HEAD^1")]
    refs = [f"refs/exps/{commit[:2]}/{commit[2:]}/twice" for commit in commits]
    for ref, commit in zip(refs, commits, strict=True):
        merged.run("git", "update-ref", ref, commit)
    printed = " ".join(text(run_report(merged, "twice")).split())
    for ref in refs:
        merged.run("git", "update-ref", "-d", ref)
    assert "twice names 2 experiments; name a commit: " in printed
    assert all(commit in printed for commit in commits)


def test_a_base_without_pipeline_or_metrics(merged):
    merged.run("git", "switch", "--quiet", "--create", "empty")
    merged.run("git", "rm", "-r", "--quiet", "--cached", "metrics")
    merged.run("git", "commit", "--quiet", "--message", "no metrics")
    merged.run("git", "rm", "--quiet", "--cached", "dvc.yaml")
    merged.run("git", "commit", "--quiet", "--message", "no pipeline")
    merged.run("git", "switch", "--quiet", "--force", "merged")
    printed = run_report(merged, "empty~0")
    assert "empty~0 has no dvc.yaml: what would be there is new." in text(printed)
    printed = run_report(merged, "empty^")
    assert "empty^ has no metrics: what would be there is new." in text(printed)
    assert "retrain.json hyperparameters.units - " in text(printed)
    merged.run("git", "branch", "--quiet", "--delete", "--force", "empty")


def test_a_shallow_clone_says_what_to_do(merged, tmp_path):
    base = merged.run("git", "rev-parse", "HEAD^1").stdout.strip()
    shallow = type(merged)(tmp_path / "shallow")
    url = f"file://{merged.folder}"
    subprocess.run(
        ["git", "clone", "--quiet", "--depth", "1", "--branch", "merged", url, str(shallow.folder)],
        check=True,
    )
    printed = run_report(shallow, base)
    assert f"{base} is not known here; git fetch , in a shallow clone with --unshallow" in text(printed)
    printed = run_report(shallow)
    assert "nothing to compare with: main is not known here" in text(printed)
    assert "trained in" in printed


def test_a_branch_that_only_the_remote_has_is_found(merged, tmp_path):
    clone = type(merged)(tmp_path / "clone")
    command = ["git", "clone", "--quiet", "--branch", "merged", str(merged.folder), str(clone.folder)]
    subprocess.run(command, check=True)
    assert "the merge base with origin/main" in run_report(clone, "main")


HOSTILE = [
    "a|b",
    "`rm`",
    "<script>alert(1)</script>",
    "two\nlines",
    "@someone #1 [x](y) **b** _i_ ~s~ \\|",
    "![x](http://y)",
    "&lt;",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_table_survives_what_users_write(value):
    tables = report.tables("main", [Change("params.yaml", value, value, value)], [])
    page = html("\n\n".join([f"**{report.escaped(value)}**", *tables]))
    shown = " ".join(value.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert page.count("<td>") == 6
    assert page.count(f"<td><code>{shown}</code></td>") == 3
    assert f"<strong>{shown}</strong>" in page.replace("<code>rm</code></strong>", "`rm`</strong>")


def test_which_direction_is_better():
    def meaning(file, key, old=1.0, new=2.0, directions=report.HEADLINES):
        return Change(f"metrics/{file}.json", key, old, new).meaning(directions)

    assert meaning("retrain", "test_accuracy.mean") == "better"
    assert meaning("retrain", "test_accuracy.mean", 2.0, 1.0) == "worse"
    assert meaning("retrain", "test_loss.mean") == meaning("retrain", "parameters") == "worse"
    verdicts = ("inferior", "inconclusive", "non_inferior")
    assert {meaning("comparison", "verdict", *pair) for pair in pairwise(verdicts)} == {"better"}
    assert meaning("comparison", "verdict", "non_inferior", "inferior") == "worse"
    assert meaning("comparison", "superior", "no", "yes") == "better"
    assert meaning("comparison", "test_accuracy.high") == "a wider interval raises it too"
    assert meaning("tune", "score") == "a smaller network may score less"
    neither = [("retrain", "test_accuracy.std"), ("retrain", "train_loss.mean")]
    neither += [("comparison", "seconds_per_epoch.ratio"), ("tune", "epoch")]
    assert {meaning(*names) for names in neither} == {""}
    assert meaning("retrain", "test_accuracy.mean", None, 1.0) == "not in both"
    assert meaning("retrain", "test_accuracy.mean", True, False) == "not in both"
    lower = report.HEADLINES | {"tune.best.score": -1}
    assert meaning("tune", "best.score", directions=lower) == "worse"


def test_each_figure_is_shown_once():
    """The network that the search chose is in two files, and in the block of its rule too."""
    units = [("retrain", "hyperparameters.units"), ("tune", "hyperparameters.units")]
    units += [("tune", "tolerance.hyperparameters.units")]
    sizes = [("comparison", "parameters.tuned"), ("retrain", "parameters"), ("tune", "tolerance.parameters")]
    scores = [("comparison", "test_accuracy.tuned"), ("retrain", "test_accuracy.mean")]
    rows = [Change(f"metrics/{file}.json", key, 176, 144) for file, key in units]
    rows += [Change(f"metrics/{file}.json", key, 139930, 114490) for file, key in sizes]
    rows += [Change(f"metrics/{file}.json", key, 0.9783, 0.9776) for file, key in scores]
    rows += [Change("metrics/tune.json", "strategy", "random", "grid")]
    rows += [Change("metrics/tune.json", f"{rule}.candidates", 1, 2) for rule in ("best", "tolerance")]
    rows += [Change("metrics/comparison.json", "epochs.tuned", 6, 10)]
    rows += [Change("metrics/tune.json", "epoch", 6, 10)]
    params = [Change("params.yaml", "tune.strategy", "random", "grid")]
    printed = "\n\n".join(report.tables("main", params, rows))
    for figure in ("`144`", "`114490`", "`0.9776`", "`grid`", "`10`"):
        assert printed.count(figure) == 1
    assert "Other metrics (3)" in printed  # two counts of candidates, and the epochs


def test_figures_of_another_data_set_are_neither_better_nor_worse():
    rows = [Change("metrics/retrain.json", "test_accuracy.mean", 0.5, 0.9)]
    assert "| better |" in "".join(report.tables("main", [], rows))
    rows.append(Change("metrics/prepare.json", "dataset", "mnist", "own"))
    printed = "".join(report.tables("main", [], rows))
    assert "| better |" not in printed
    assert "| of another data set |" in printed


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("tune.max_epochs", "of another max_epochs"),
        ("prepare.validation_split", "of other validation examples"),
        ("seed", "of other validation examples"),
    ],
)
def test_scores_of_searches_that_cannot_be_compared_are_neither_better_nor_worse(key, reason):
    rows = [Change("metrics/tune.json", "best.score", 0.5, 0.9)]
    assert "| better |" in "".join(report.tables("main", [], rows))
    tune = {"objective": "val_accuracy", "best": {"standard_error": 0.16}}
    assert "| better, by 2.5 standard errors |" in "".join(report.tables("main", [], rows, tune))
    printed = "".join(report.tables("main", [Change("params.yaml", key, 1, 2)], rows))
    assert "| better |" not in printed
    assert f"| {reason} |" in printed


def test_of_several_reasons_the_last_in_the_list_is_shown():
    """The order does not depend on that of a set, which differs between processes."""
    rows = [Change("metrics/tune.json", "best.score", 0.5, 0.9)]
    params = [Change("params.yaml", key, 1, 2) for key in ("seed", "tune.max_epochs")]
    assert "| of other validation examples |" in "".join(report.tables("main", params, rows))


def test_verdicts_on_different_scores_are_not_compared():
    rows = [Change("metrics/comparison.json", "verdict", "inferior", "non_inferior")]
    rows += [Change("metrics/comparison.json", "test_auc.difference", None, 0.1)]
    assert "| better |" in "".join(report.tables("main", [], rows))
    rows += [Change("metrics/comparison.json", "test_accuracy.difference", 0.1, None)]
    printed = "".join(report.tables("main", [], rows))
    assert "| better |" not in printed
    assert "| of another score |" in printed
    assert "| not in both |" in printed


def test_numbers_are_short_and_small_ones_have_digits_too():
    numbers = (0.123456789, 4.0, 12345, 0.00009363, -0.00002, True, None)
    assert [report.shown(number) for number in numbers] == [
        *("0.12346", "4", "12345", "9.36e-05", "-2e-05", "True", "-")
    ]
    assert report.shown(0.00009363, "+") == "+9.36e-05"


def test_verdicts_of_different_margins_are_not_compared(merged):
    path = merged.folder / "metrics/comparison.json"
    content = json.loads(path.read_text())
    content["margin"], content["verdict"] = 0.5, "non_inferior"
    assert merged.metrics("comparison")["verdict"] != "non_inferior"
    path.write_text(json.dumps(content))
    assert "| of another margin |" in run_report(merged, "HEAD")


def test_conflicts_of_a_merge_are_refused_in_one_line(merged):
    for name in ("params.yaml", "dvc.lock", "metrics/tune.json"):
        path = merged.folder / name
        path.write_text(f"<<<<<<< HEAD\n{path.read_text()}=======\n>>>>>>> other\n")
    line = (
        "error: a merge left conflicts in params.yaml, dvc.lock, metrics/tune.json; edit params.yaml, then "
        "`git checkout HEAD -- dvc.lock metrics` and `dvc repro`\n"
    )
    assert run_report(merged, "--check", check=False) == run_report(merged, check=False) == line


def test_what_is_printed_is_plain(merged):
    printed = run_report(merged, "HEAD^1")
    assert not re.search("&#|<code>|<!--", printed)
    assert "`tune.strategy`" in printed


@pytest.mark.weekly
def test_a_project_in_a_sub_folder_and_python_without_docstrings(merged, tmp_path):
    project = type(merged)(tmp_path / "top/project")
    shutil.copytree(merged.folder, project.folder, ignore=shutil.ignore_patterns(".git", "cache", "trials"))
    top = type(merged)(tmp_path / "top")
    top.run("git", "init", "--quiet", "--initial-branch=main")
    top.commit()
    project.update_params({"compare": {"margin": 0.5}})
    command = ["env", "PYTHONOPTIMIZE=2", "python", "-m", "stages.review.report"]
    printed = project.run(*command).stdout
    assert "has no" not in printed
    assert "The metrics of retrain are out of date" in printed
    assert "| `params.yaml` | `compare.margin` |" in printed
    assert "usage" in project.run(*command, "--help").stdout


def test_the_direction_of_the_score_is_that_of_the_objective(merged):
    def row(objective: str, score: float) -> str:
        path = merged.folder / "metrics/tune.json"
        content = json.loads(path.read_text())
        content["objective"], content["best"]["score"] = objective, score
        path.write_text(json.dumps(content))
        lines = run_report(merged, "HEAD").splitlines()
        return next(line for line in lines if line.startswith("| `tune.json` | `best.score` |"))

    assert re.search(r"\| worse, by [\d.]+ standard errors \|$", row("val_accuracy", 0.1))
    assert row("val_loss", 0.1).endswith("| of another objective |")
    merged.commit()
    assert re.search(r"\| worse, by [\d.]+ standard errors \|$", row("val_loss", 0.2))


def test_what_cannot_be_read_is_noted_and_the_rest_is_shown(merged):
    (merged.folder / "params.yaml").write_text("seed: [1")
    printed = run_report(merged, "HEAD^1")
    assert " ".join(json.loads((merged.folder / "metrics/comparison.json").read_text())["summary"]) in text(
        printed
    )
    assert "params.yaml" in printed
    assert "retrain.json" in printed
    assert "Traceback" not in printed


def test_a_missing_file_of_metrics_is_noted_once(merged):
    (merged.folder / "metrics/tune.json").unlink()
    printed = run_report(merged, "HEAD")
    assert printed.count("metrics/tune.json is missing") == 1
    row = next(line for line in printed.splitlines() if line.startswith("| `tune.json` | `best.score` |"))
    assert row.endswith("| not in both |")


def test_the_job_that_may_write_runs_no_code_of_the_repository():
    workflow = yaml.safe_load((WORKFLOWS / "report.yml").read_text())
    assert workflow[True] == {"pull_request": None}  # YAML reads `on` as true
    assert workflow["permissions"] == {}
    assert workflow["jobs"]["report"]["permissions"] == {"contents": "read"}
    comment = workflow["jobs"]["comment"]
    assert comment["permissions"] == {"pull-requests": "write"}
    assert not any(
        "checkout" in step.get("uses", "") or "python" in step.get("run", "") for step in comment["steps"]
    )
    assert "head.repo.full_name == github.repository" in comment["if"]


def test_pull_requests_restore_what_main_saves_and_save_nothing_themselves():
    """What main saves does not grow with each commit."""
    jobs = [
        yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text())["jobs"][name] for name in ("cache", "report")
    ]
    main, pull_request = (
        next(step for step in job["steps"] if ".dvc/cache" in step.get("with", {}).get("path", ""))
        for job in jobs
    )
    assert main["with"] == pull_request["with"]
    assert main["uses"].startswith("actions/cache@")
    assert pull_request["uses"].startswith("actions/cache/restore@")
    assert [step.get("run") for step in jobs[0]["steps"][-2:]] == ["dvc repro", "dvc gc --workspace --force"]


def test_file_names_of_pictures():
    assert pictures.file_name("metrics/plots/trials.csv") == "metrics-plots-trials.png"
    assert pictures.file_name("../Ünï|x y") == "n-x-y.png"


def page_content(page: str) -> dict:
    """The content of a page of plots, which must load nothing."""
    assert not re.search(
        r"""(src|href)\s*=\s*["']?(https?:)?//|@import|\bimport\s*[("'{*]|\bfrom\s*["']http""", page
    )
    assert "default-src 'none'" in page
    return json.loads(re.search(r"^const \{ summary, plots \} = (.*);$", page, re.MULTILINE)[1])


def test_the_page_has_all_plots_and_loads_nothing(merged):
    """Pictures that are drawn again are the same bytes."""
    drawn = []
    for _ in range(2):
        printed = merged.run("python", "-m", "stages.review.pictures").stdout
        assert printed == f"pictures: {pictures.PAGE} shows all plots in any browser, also offline\n"
        drawn.append(merged.files("docs", "dvc_plots"))
    assert drawn[0] == drawn[1]
    assert all(content.startswith(PNG) for name, content in drawn[0].items() if name.endswith(".png"))
    content = page_content((merged.folder / pictures.PAGE).read_text())
    assert content["summary"] == " ".join(
        json.loads((merged.folder / "metrics/comparison.json").read_text())["summary"]
    )
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    of_stages = [
        name for stage in pipeline["stages"].values() for plot in stage.get("plots", []) for name in plot
    ]
    combined = {name for plot in pipeline["plots"] for name in plot}
    assert set(content["plots"]) == {*of_stages, *combined} - pictures.IN_ONE
    assert all(plot["data"]["values"] for plot in content["plots"].values())
    printed = run_report(merged, "HEAD^1", "--output", "report")
    assert printed == "report: wrote report/report.md and 7 files of pictures beside it\n"
    changed = page_content((merged.folder / "report/plots.html").read_text())
    assert {row["rev"] for plot in changed["plots"].values() for row in plot["data"]["values"]} == {
        "before",
        "now",
    }


def test_a_page_is_not_ended_by_what_it_shows(monkeypatch):
    monkeypatch.chdir(ROOT)
    plots = {"odd": {"title": "$x </script><b>", "data": {"values": []}}}
    page = pictures.page(plots, "</script> <!-- $libraries")
    assert page.count("</script>") == 2
    assert page_content(page) == {"summary": "</script> <!-- $libraries", "plots": plots}


def test_a_clone_with_windows_line_ends_has_the_files_of_dvc_lock(tmp_path):
    """DVC hashes bytes: with other line ends, each stage would be out of date."""
    written = {
        ".gitattributes": (ROOT / ".gitattributes").read_bytes(),
        "code.py": b"1\n",
        "a.png": b"\r\n\n",
    }
    (tmp_path / "here").mkdir()
    for name, content in written.items():
        (tmp_path / "here" / name).write_bytes(content)
    for command in (
        ["init", "--quiet", "here"],
        ["-C", "here", "add", "."],
        ["-C", "here", "commit", "--quiet", "--message", "all"],
        ["clone", "--quiet", "--config", "core.autocrlf=true", "here", "there"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, env=ENVIRONMENT, check=True)
    assert {name: (tmp_path / "there" / name).read_bytes() for name in written} == written
