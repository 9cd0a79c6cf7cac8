"""Clusters whose machines share only a network: with TLS, and with a cut cable."""

import os
import re
import subprocess
import time
from pathlib import Path

import dask
import psutil
import pytest
from conftest import ENVIRONMENT, ROOT
from searches import cluster_by_hand, start, wait_for_store

from stages.base.console import UserError
from stages.base.params import load
from stages.comparison.replicates import final_runner
from stages.compute.cluster import connect

pytestmark = pytest.mark.weekly


def commands(section: str) -> str:
    """The shell lines of a section of docs/cluster.md."""
    return (
        (ROOT / "docs/cluster.md")
        .read_text()
        .partition(f"\n## {section}\n")[2]
        .partition("```sh\n")[2]
        .partition("```")[0]
    )


def certificates(home: Path) -> dict[str, str]:
    """Make certificates in `home` as in docs/cluster.md; return the variables that name them."""
    home.mkdir()
    script, environment = f"set -e\n{commands('TLS')}\nexec env -0", {**ENVIRONMENT, "HOME": str(home)}
    done = subprocess.run(["sh", "-c", script], env=environment, check=True, capture_output=True, text=True)
    variables = dict(line.split("=", 1) for line in done.stdout.rstrip("\0").split("\0"))
    return {name: value for name, value in variables.items() if name.startswith("DASK_DISTRIBUTED__COMM__")}


def test_a_cluster_with_tls_in_other_folders_writes_the_same_bytes(project, tmp_path):
    """Its only worker vanishes, and another one joins later than Dask would wait by default.

    Each uses more than 200 MB of memory, at which Dask is configured here to pause workers.
    """
    expected = project.outputs()
    project.empty_store()
    tls, limit = certificates(tmp_path / "home"), ("--nanny", "--memory-limit", "4GB")
    pause = {"DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE": "0.05"}
    with cluster_by_hand(tmp_path, "tls", **tls, **pause) as (address, _, start_worker):
        worker = psutil.Process(start_worker(*limit).pid)
        search = start(project, DASK_SCHEDULER_ADDRESS=address, **tls)
        wait_for_store(project, 1, search)
        for process in (worker, *worker.children(recursive=True)):
            process.kill()
        time.sleep(12)
        start_worker(*limit)
        output = search.communicate(timeout=120)[0]
        assert search.returncode == 0, output
    assert project.outputs() == expected


def test_without_the_right_certificates_one_line_says_so(project, tmp_path, monkeypatch):
    project.empty_store()
    before = project.outputs()
    right, others = certificates(tmp_path / "home"), certificates(tmp_path / "other")
    monkeypatch.setattr("stages.compute.workers.TIMEOUT", 1)
    monkeypatch.chdir(project.folder)
    with cluster_by_hand(tmp_path, "tls", **right) as (address, _, _):
        search = start(project, DASK_SCHEDULER_ADDRESS=address)
        output = search.communicate(timeout=60)[0]
        assert search.returncode == 1
        line = r"error: DASK_SCHEDULER_ADDRESS is tls://.+ no scheduler answers .+ docs/cluster.md, .+\n"
        assert re.fullmatch(line, output), output
        ca, cert = "DASK_DISTRIBUTED__COMM__TLS__CA_FILE", "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT"
        silent = "^DASK_SCHEDULER_ADDRESS is {0}, but no scheduler .+"
        for scheme, wrong, said in [
            ("tls", {}, "^there are no workers; start one with `dask worker {0}`$"),
            ("tls", {ca: "/nowhere"}, f"{silent}No such file or directory.+$"),
            ("tls", {ca: others[ca]}, f"{silent}TLS certificate does not match.+$"),
            ("tls", {cert: others[cert]}, f"{silent}.+$"),  # the scheduler closes the connection
            ("tcp", {}, f"{silent}encryption required.+$"),
        ]:
            there = address.replace("tls", scheme)
            named = {
                name.removeprefix("DASK_").replace("__", ".").lower(): value
                for name, value in {**right, **wrong}.items()
            }
            with (
                dask.config.set({**named, "scheduler-address": there}),
                pytest.raises(UserError, match=said.format(there)),
                connect(None) as client,
                final_runner(client, load()) as trainings,
            ):
                trainings.ask("compare")
    assert project.outputs() == before


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def machines():
    """Network namespaces by name; a switch in `here`, at 10.77.0.1, connects them."""
    names = {name: f"{name}-{os.getpid()}" for name in ("here", "one", "two")}
    here, made = names["here"], []
    try:
        try:
            for namespace in names.values():
                ip("netns", "add", namespace)
                made.append(namespace)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"this test needs network namespaces: Linux, root, iproute2 ({error})")
        ip("-n", here, "link", "add", "switch", "type", "bridge")
        for number, (name, namespace) in enumerate(names.items(), start=1):
            if name != "here":
                ip(
                    "-n",
                    here,
                    "link",
                    "add",
                    name,
                    "type",
                    "veth",
                    "peer",
                    "name",
                    "switch",
                    "netns",
                    namespace,
                )
                ip("-n", here, "link", "set", name, "master", "switch", "up")
            ip("-n", namespace, "address", "add", f"10.77.0.{number}/24", "dev", "switch")
            ip("-n", namespace, "link", "set", "switch", "up")
            ip("-n", namespace, "link", "set", "lo", "up")
        yield names
    finally:
        for namespace in made:
            ip("netns", "delete", namespace)


def test_a_machine_whose_cable_is_cut_and_one_that_comes_late_change_nothing(project, machines, tmp_path):
    """Once the connections to the first machine time out, the second does its tasks."""
    expected = project.outputs()
    project.empty_store()
    here, one, two = (("ip", "netns", "exec", machine) for machine in machines.values())
    quick = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "20s"}  # in which the second starts
    with cluster_by_hand(tmp_path, host="10.77.0.1", before=here, **quick) as (address, _, start_worker):
        start_worker(before=one)
        search = start(project, *here, "python", "-m", "stages.tune", DASK_SCHEDULER_ADDRESS=address)
        wait_for_store(project, 1, search)
        ip("-n", machines["here"], "link", "set", "one", "down")
        start_worker(before=two)
        output = search.communicate(timeout=200)[0]
        assert search.returncode == 0, output
    assert project.outputs() == expected
