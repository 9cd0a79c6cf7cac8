"""What Git and DVC report about the repository, by their command-line tools."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import yaml

from stages.base import params
from stages.base.console import UserError


def dvc(*arguments: str) -> str:
    """Run the `dvc` of this Python environment; return what it prints. UserError if it fails."""
    return run(sys.executable, "-m", "dvc", *arguments)


def run(*command: str, check: bool = True) -> str:
    """Run `command`; return what it prints. If it fails: UserError or, without `check`, an empty string."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and check:
        raise UserError(f"`{' '.join(command[-4:])}` failed: {' '.join(done.stderr.split())[-300:]}")
    return "" if done.returncode else done.stdout.strip()


def resolve(base: str | None) -> tuple[str, str]:
    """Return the name and the commit of `base`, by default main; of a branch, the merge base with it.

    Raises:
        UserError: there is no such revision or experiment, or several experiments have the name.
    """
    git = partial(run, "git", check=False)
    verified = partial(git, "rev-parse", "--verify", "--quiet", "--end-of-options")
    candidates = (base, f"origin/{base}") if base else ("origin/main", "main")
    name = next(filter(verified, candidates), base or "main")
    commit, full = verified(f"{name}^{{commit}}"), git("rev-parse", "--symbolic-full-name", name)
    if full.startswith(("refs/heads/", "refs/remotes/")) and name != "HEAD":
        # Later commits of that branch would look as if they were reverted here
        commit, name = git("merge-base", full, "HEAD"), f"the merge base with {name}"
    commits = (commit or git("for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{name}")).split()
    if len(commits) > 1:
        raise UserError(f"{name} names {len(commits)} experiments; name a commit: {', '.join(commits)}")
    if not commits:
        advice = "`git fetch`, in a shallow clone with --unshallow, or name another revision"
        raise UserError(f"nothing to compare with: {name} is not known here; {advice}")
    return name, commits[0]


def out_of_date() -> str:
    """Return a message on stages whose code, params or committed outputs differ from dvc.lock, or "".

    The folder data/ is ignored, since it may be missing or another branch's. Instead, the outputs of each
    stage in dvc.lock are compared with the dependencies of later ones.
    """
    stale, command = [], "dvc repro"
    for stage, entries in json.loads(dvc("status", "--json")).items():
        for entry in entries:  # a string such as "changed command", or a dictionary with files
            files = next(iter(entry.values())) if isinstance(entry, dict) else [entry]
            if not all(file.startswith("data/") for file in files):
                stale.append(stage)
    lock = Path("dvc.lock")
    stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"] if lock.is_file() else {}
    made = {out["path"]: out.get("md5") for stage in stages.values() for out in stage.get("outs", [])}
    for stage, locked in stages.items():
        if any(made.get(dep["path"], dep.get("md5")) != dep.get("md5") for dep in locked.get("deps", [])):
            stale.append(stage)
    locked_params = stages.get("tune", {}).get("params", {}).get("params.yaml", {})
    before, now = list(locked_params.get("tune.space", {})), list(params.load().tune.space)
    if before != now and sorted(before) == sorted(now) and "tune" not in stale:  # DVC ignores the order
        stale.append("tune (tune.space was reordered, which changes the values drawn)")
        command = "dvc repro --force tune && dvc repro"
    return f"metrics of {', '.join(dict.fromkeys(stale))} are out of date; run `{command}`" if stale else ""
