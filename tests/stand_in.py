"""A stand-in for Dask's client, for tests of what the client makes of what workers tell."""

from concurrent.futures import Future
from types import SimpleNamespace


class DaskClient:
    """Dask's client, as far as stages/compute knows it; each task that it is given ends at once."""

    id, status, cluster = "Client-a", "running", None
    scheduler = SimpleNamespace(address="tcp://scheduler")

    def __init__(self):
        self.threads, self.submitted, self.answers, self.ended = {}, [], {}, []

    def nthreads(self) -> dict[str, int]:
        return self.threads

    def submit(self, _, name: str, task: str, job: dict, device: str, **how) -> Future:
        self.submitted.append(job)
        future = Future()
        future.set_result(self.answers[job["key"]].pop(0))
        return future

    def unregister_worker_plugin(self, name: str) -> None:
        self.ended.append(name)
