"""The report of a pull request: real branches, the real workflow's shell, real diffs of DVC."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
import yaml
from conftest import ENVIRONMENT
from markdown_it import MarkdownIt

from stages.review import pictures, report
from stages.review.report import Change, Report

ROOT = Path(__file__).parent.parent
WORKFLOWS = ROOT / ".github/workflows"
PNG = b"\x89PNG\r\n\x1a\n"


def html(markdown: str) -> str:
    return MarkdownIt("commonmark").enable("table").render(markdown)


def text(markdown: str) -> str:
    """What a reader sees of it, in one line."""
    return unescape(" ".join(re.sub("<.*?>", " ", html(markdown)).split()))


def run_report(project, *arguments: str, check: bool = True) -> str:
    return project.run("python", "-m", "stages.review.report", *arguments, check=check).stdout


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
    """Run the shell of the workflow's report step as GitHub does; what it wrote into the job summary."""
    steps = yaml.safe_load((WORKFLOWS / "report.yml").read_text())["jobs"]["report"]["steps"]
    step = next(step for step in steps if step.get("name") == "Write the report")
    summary = tmp_path / "summary.md"
    done = subprocess.run(
        ["bash", "-e", "-c", step["run"]],
        cwd=project.folder,
        env={**ENVIRONMENT, "GITHUB_STEP_SUMMARY": str(summary), "RUN": "https://example.org/runs/1"},
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
    page = html(written)
    assert "<td><code>tune.strategy</code></td>" in page
    assert "<td><code>hyperband</code></td>\n<td><code>random</code></td>" in page
    assert "<td><code>strategy</code></td>" in page
    assert "WARNING" not in written
    before, _, folded = written.partition("<details>")
    assert "seconds" not in before
    assert "seconds" in folded
    rows = re.findall(
        r"^\| <code>(\S+)</code> \| <code>(\S+)</code>", folded.partition("</details>")[0], re.M
    )
    assert rows == sorted(rows)
    assert len(rows) > 5
    assert "(https://example.org/runs/1#artifacts)" in written
    drawn = sorted(path.name for path in (merged.folder / "report").glob("*.png"))
    assert drawn == [
        "metrics-plots-baseline.png",
        "metrics-plots-confusion.png",
        "metrics-plots-retrain.png",
        "metrics-plots-space.png",
        "metrics-plots-trials.png",
        "training-score.png",
    ]
    assert all((merged.folder / "report" / name).read_bytes().startswith(PNG) for name in drawn)
    assert (merged.folder / "report/report.md").read_text() == written


def test_params_without_their_metrics_are_reproduced_and_marked(merged, tmp_path):
    merged.update_params({"retrain": {"from": "baseline"}})
    merged.commit()
    stale = run_report(merged, "--check", check=False)
    assert stale == "error: metrics of retrain are out of date; run `dvc repro`\n"
    told = run_report(merged, "HEAD^1")
    assert "Metrics of retrain are out of date" in html(told)
    written = run_step(merged, tmp_path)
    assert "out of date" not in written
    assert "These metrics are not committed" in written
    assert "<td><code>tune</code></td>\n<td><code>baseline</code></td>" in html(written)
    assert "the same hyperparameters" in written


def test_another_branchs_data_says_nothing_and_dvc_lock_has_to_agree_with_itself(merged):
    merged.run("git", "switch", "--quiet", "main")
    assert "data/tune/hyperparameters.json" in merged.dvc("status")
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
    pipeline = merged.folder / "dvc.yaml"
    pipeline.write_text(
        pipeline.read_text().replace("deps:", "deps:\n      - data/tune/hyperparameters.json", 2)
    )
    assert "metrics of prepare, baseline are out of date" in run_report(merged, "--check", check=False)


def test_the_default_base_is_where_the_branch_left_main(merged):
    merged.run("git", "switch", "--quiet", "random")
    merged.dvc("checkout", "--force", "--quiet")
    told = run_report(merged)
    assert "Compared with <code>the merge base with origin/main</code>:" in told
    assert "<td><code>hyperband</code></td>\n<td><code>random</code></td>" in html(told)


def test_nothing_changed_is_one_line(merged):
    told = run_report(merged, "HEAD")
    assert told.strip().splitlines()[4:] == ["No param and no metric changed against <code>HEAD</code>."]


@pytest.mark.parametrize("base", ["no-such-branch", "--help=x"])
def test_an_unknown_base_is_a_clear_line_and_the_sentence_is_said(merged, base):
    told = run_report(merged, "--", base)
    assert told.count("per epoch") == 1
    assert f"Nothing to compare with: {base} is no revision that is known here; `git fetch`" in text(told)
    assert "changed against" not in told


def test_an_experiment_can_be_compared_with(experimented):
    told = run_report(experimented, "bayesian")
    assert "Compared with <code>bayesian</code>:" in told
    assert "<td><code>bayesian</code></td>\n<td><code>hyperband</code></td>" in html(told)


def test_a_base_without_pipeline_or_metrics(merged):
    merged.run("git", "switch", "--quiet", "--create", "empty")
    merged.run("git", "rm", "-r", "--quiet", "--cached", "metrics")
    merged.run("git", "commit", "--quiet", "--message", "no metrics")
    merged.run("git", "rm", "--quiet", "--cached", "dvc.yaml")
    merged.run("git", "commit", "--quiet", "--message", "no pipeline")
    merged.run("git", "switch", "--quiet", "--force", "merged")
    told = run_report(merged, "empty")
    assert "empty has no dvc.yaml: all params and metrics are new." in text(told)
    told = run_report(merged, "empty^")
    assert "empty^ has no metrics: all of them are new." in text(told)
    assert "retrain.json hyperparameters.units - " in text(told)
    merged.run("git", "branch", "--quiet", "--delete", "--force", "empty")


def test_a_shallow_clone_says_what_to_do(merged, tmp_path):
    base = merged.run("git", "rev-parse", "HEAD^1").stdout.strip()
    shallow = type(merged)(tmp_path / "shallow")
    url = f"file://{merged.folder}"
    subprocess.run(
        ["git", "clone", "--quiet", "--depth", "1", "--branch", "merged", url, str(shallow.folder)],
        check=True,
    )
    told = run_report(shallow, base)
    assert (
        f"{base} is no revision that is known here; this clone is shallow; `git fetch --unshallow`"
        in text(told)
    )
    told = run_report(shallow)
    assert "Nothing to compare with: there is no branch main here" in text(told)
    assert "per epoch" in told


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
    page = html(
        report.markdown(
            Report("main", summary=value, params=[Change("params.yaml", value, value, value)]), {}
        )
    )
    shown = " ".join(value.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert page.count("<td>") == 4
    assert page.count(f"<td><code>{shown}</code></td>") == 3
    assert f"<strong>{shown}</strong>" in page


def test_which_direction_is_better():
    def meaning(file, key, old=1.0, new=2.0, sign=1):
        return Change(f"metrics/{file}.json", key, old, new).meaning(sign)

    assert meaning("retrain", "test_accuracy.mean") == "better"
    assert meaning("retrain", "test_accuracy.mean", 2.0, 1.0) == "worse"
    assert meaning("retrain", "test_loss.mean") == meaning("retrain", "parameters") == "worse"
    neither = [
        ("retrain", "hyperparameters.units"),
        ("retrain", "test_accuracy.std"),
        ("retrain", "train_loss.mean"),
    ]
    neither += [
        ("comparison", "margin"),
        ("comparison", "seconds_per_epoch.ratio"),
        ("tune", "trials"),
        ("tune", "epoch"),
        ("tune", "score"),  # lower by design where a smaller network is chosen
    ]
    assert {meaning(*names) for names in neither} == {""}
    assert (
        meaning("retrain", "test_accuracy.mean", None, 1.0)
        == meaning("retrain", "test_accuracy.mean", True, False)
        == ""
    )
    assert [meaning("tune", "best.score", sign=sign) for sign in (1, 0, -1)] == ["better", "", "worse"]


def test_the_scores_direction_is_that_of_the_objective(merged):
    def row(objective: str, score: float) -> str:
        path = merged.folder / "metrics/tune.json"
        content = json.loads(path.read_text())
        content["objective"], content["best"]["score"] = objective, score
        path.write_text(json.dumps(content))
        told = run_report(merged, "HEAD")
        return next(
            line
            for line in told.splitlines()
            if line.startswith("| <code>tune.json</code> | <code>best.score</code>")
        )

    assert row("val_accuracy", 0.1).endswith("| worse |")
    assert row("val_loss", 0.1).endswith("|  |")
    merged.commit()
    assert row("val_loss", 0.2).endswith("| worse |")


def test_what_cannot_be_read_is_noted_and_the_rest_is_said(merged):
    (merged.folder / "params.yaml").write_text("seed: [1")
    told = run_report(merged, "HEAD^1")
    assert " ".join(json.loads((merged.folder / "metrics/comparison.json").read_text())["summary"]) in text(
        told
    )
    assert "params.yaml" in told
    assert "retrain.json" in told
    assert "Traceback" not in told


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
    """And what main saves does not grow with each commit."""
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


def test_pictures_are_the_same_bytes_again(merged):
    drawn = [
        merged.run("python", "-m", "stages.review.pictures") and merged.files("docs", "dvc_plots")
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1]
    assert all(content.startswith(PNG) for name, content in drawn[0].items() if name.endswith(".png"))


def page_content(page: str) -> dict:
    """What a page of plots shows; it must load nothing."""
    assert not re.search(
        r"""(src|href)\s*=\s*["']?(https?:)?//|@import|\bimport\s*[("'{*]|\bfrom\s*["']http""", page
    )
    assert "default-src 'none'" in page
    return json.loads(re.search(r"^const \{ summary, plots \} = (.*);$", page, re.MULTILINE)[1])


def test_the_page_has_all_plots_and_loads_nothing(merged):
    told = merged.run("python", "-m", "stages.review.pictures").stdout
    assert told == f"pictures: {pictures.PAGE} shows all plots, in any browser, without a network\n"
    content = page_content((merged.folder / pictures.PAGE).read_text())
    assert content["summary"] == " ".join(
        json.loads((merged.folder / "metrics/comparison.json").read_text())["summary"]
    )
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    of_stages = [
        name for stage in pipeline["stages"].values() for plot in stage.get("plots", []) for name in plot
    ]
    assert set(content["plots"]) == {*of_stages, *(name for plot in pipeline["plots"] for name in plot)}
    assert all(plot["data"]["values"] for plot in content["plots"].values())
    run_report(merged, "HEAD^1", "--output", "report")
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
