"""A stand-in for Dask's client, for tests of how a stage handles the workers' results."""

import platform
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace

ABOUT = {"device": "CPU", "takes_epochs": False}


class DaskClient:
    """The part of Dask's client that stages/compute uses; each task is done as soon as it is submitted.

    `answers` has the results of each job by its key, and `abouts` those of the tasks "about", of which the
    last is used again and again.
    """

    id, status, cluster = "Client-a", "running", None
    scheduler = SimpleNamespace(address="tcp://scheduler")

    def __init__(self):
        self.threads, self.submitted, self.devices, self.answers, self.ended = {}, [], [], {}, []
        self.abouts, self.topics = [ABOUT], {}

    def nthreads(self) -> dict[str, int]:
        return self.threads

    def submit(self, _, name: str, device: str | None, task: str, job: dict, **how) -> Future:
        future = Future()
        if task == "about":
            future.set_result(self.abouts.pop(0) if len(self.abouts) > 1 else self.abouts[0])
            return future
        self.submitted.append(job)
        self.devices.append(device)
        future.set_result(self.answers[job["key"]].pop(0))
        return future

    def subscribe_topic(self, topic: str, handler: Callable) -> None:
        self.topics[topic] = handler

    def get_versions(self) -> dict:
        return {"workers": {}, "scheduler": {"host": {"python": platform.python_version()}}}

    def run_on_scheduler(self, _) -> None:
        pass

    def register_plugin(self, _) -> None:
        pass

    def unregister_worker_plugin(self, name: str) -> None:
        self.ended.append(name)
