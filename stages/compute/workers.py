"""On the client: the workers of one run of a stage, each of which gets one task at a time."""

import pickle
import queue
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

import cloudpickle
import distributed
from distributed import Client, Future
from distributed.client import ClosedClientError

from stages.base import console
from stages.base.console import UserError
from stages.compute import cluster, code, plugin

TIMEOUT = 60  # seconds to wait for a worker after all were lost; twice as long for the first worker
POLL = 0.2  # seconds between two checks for an idle worker
RETRIES = 2  # of a task that failed because of its worker, such as for lack of memory or a broken package
LARGEST_MESSAGE = 4.2e9  # bytes; a message of Dask holds at most 2**32
LONGEST_MESSAGE = 300  # seconds to wait for the result of a finished task
KEPT = "finished epochs are kept, run again to go on"

cloudpickle.register_pickle_by_value(plugin)
# A copy that is pickled by value: the scheduler unpickles it too, and has no code of this repository
_call = cloudpickle.loads(cloudpickle.dumps(plugin.call))


class Workers:
    """All workers of a Dask client, including those that join later; a context manager.

    At its end, the workers drop the code and the data.

    Args:
        client: Dask's client.
        files: the code for the workers, by path.
        tasks: the module in `files` that has a class `Session`, and functions of a session and a job: the
            tasks.
        session: the arguments of `Session`, which each worker creates once.

    Attributes:
        versions: `plugin.versions` of this process, which all workers must match.
        waiting: a function that is called about once a second while waiting for a result.

    Raises:
        UserError: the arguments are too large to be sent.
    """

    def __init__(self, client: Client, files: dict[str, bytes], tasks: str, session: dict[str, Any]):
        self._client, self.versions = client, plugin.versions()
        self.waiting: Callable[[], object] = lambda: None
        self._name = f"{plugin.PREFIX}{client.id}-{uuid.uuid4().hex[:8]}"
        arguments = pickle.dumps(session)
        if len(arguments) > LARGEST_MESSAGE:
            raise UserError(
                f"data/prepared has {len(arguments) / 1e9:.1f} GB, but {LARGEST_MESSAGE / 1e9} at most can "
                "be sent to the workers of DASK_SCHEDULER_ADDRESS; unset it to train on this machine"
            )
        digest = code.digest(files)
        stage = self._name, self.versions, files, digest, tasks, arguments
        self._plugin = plugin.StagePlugin(*stage, same_packages=bool(client.cluster))
        self._first_tasks: dict[Future, dict] = {}  # task "about", one for each worker
        self._reasons: dict[str, str] = {}  # why workers were sent away
        self._last_seen = time.monotonic() + TIMEOUT  # when a worker was last ready; the first has longer

    def __enter__(self) -> "Workers":
        """Send code and data to all workers, also to those that join later."""
        self._client.subscribe_topic(self._name, lambda event: self._report(**event[1]))
        try:
            with _loss_as_user_error():
                self._retire_other_pythons()
                self._client.run_on_scheduler(plugin.remove_orphans)
                # A worker may die while the plugin is registered; all other workers, and later ones, get it
                with suppress(OSError):
                    self._client.register_plugin(self._plugin)
                # The workers import the code while the client continues
                count = max(1, len(self._client.nthreads()))
                self._first_tasks = {self._submit(None, "about", {}): {} for _ in range(count)}
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        if self._client.status == "running":
            with suppress(Exception):  # must not hide an error of the block
                self._client.unregister_worker_plugin(self._name)

    def _retire_other_pythons(self) -> None:
        """Retire workers with another Python version, which could not unpickle the plugin and its check.

        A later worker with such a version cannot join. UserError if the scheduler has one.
        """
        versions: Any = self._client.get_versions()
        ours = self.versions["Python"]
        for worker, about in {"scheduler": versions["scheduler"], **versions["workers"]}.items():
            theirs = ".".join(about["host"]["python"].split(".")[:2])
            if theirs == ours:
                continue
            reason = f"Python {theirs} where the client has {ours}"
            if worker == "scheduler":
                raise UserError(f"the scheduler has {reason}; restart it")
            self._report(worker, reason)
            self._client.retire_workers([worker], close_workers=True)

    def _report(self, worker: str, reason: str) -> None:
        """Print why a worker was sent away, once for each reason: it may be restarted again and again."""
        if reason not in self._reasons:
            console.say(f"worker {worker} was sent away: {reason}")
            self._reasons[reason] = f"{worker}: {reason}"

    @cached_property
    def about(self) -> dict:
        """What `Session.about` must be on all workers; its `device` is "GPU" if any worker has one.

        UserError as for `results`.
        """
        answers: list[dict] = []
        try:
            for _, answer in self.results("about", deque()):
                answers.append(answer)
        except UserError:
            if not answers:  # otherwise, do without the workers that did not answer
                raise
        if any("failure" in answer for answer in answers):
            advice = "set a smaller runtime.workers, or use a machine with more memory"
            raise UserError(f"no worker can start: out of memory; {advice}")
        return max(answers, key=lambda answer: answer["device"])

    def results(
        self, task: str, jobs: deque[dict], prepare: Callable[[dict], dict] = lambda job: job
    ) -> Iterator[tuple[dict, dict]]:
        """Run `task` on the workers for each of `jobs`; yield each job with its result when it is done.

        Jobs start in the order of the queue, to which the caller may add more between two results. A job is
        submitted only when a worker is free: if it waited in a worker's queue, Dask would count the worker's
        death against it too.

        Args:
            prepare: a function that is called with a job just before it starts; what it returns is sent.

        Raises:
            UserError: all workers are lost, a task failed on each try, or a worker found a mistake of the
                user.
        """
        running = self._first_tasks if task == "about" else {}
        device = None if task == "about" else self.about["device"]
        done: queue.SimpleQueue[Future] = queue.SimpleQueue()
        for future in running:
            future.add_done_callback(done.put)
        self._last_seen = max(self._last_seen, time.monotonic())
        with _loss_as_user_error():
            while jobs or running:
                while jobs and len(running) < max(1, len(self._client.nthreads())):
                    job = jobs.popleft()
                    future = self._submit(device, task, prepare(job))
                    running[future] = job
                    future.add_done_callback(done.put)
                try:
                    future = done.get(timeout=POLL if jobs else 1)
                except queue.Empty:
                    self.waiting()
                    self._check()
                    continue
                self._last_seen = max(self._last_seen, time.monotonic())
                try:
                    result = self._result(future)
                except TimeoutError:  # lost with its worker; Dask runs the task again on another
                    future.add_done_callback(done.put)
                else:
                    yield running.pop(future), result

    def _submit(self, device: str | None, task: str, job: dict) -> Future:
        return self._client.submit(_call, self._name, device, task, job, retries=RETRIES, pure=False)

    def _result(self, future: Future) -> dict:
        """Return the result of a task; TimeoutError if it does not arrive."""
        try:
            result = future.result(LONGEST_MESSAGE)
        except distributed.KilledWorker as error:
            died = f"the worker died {error.allowed_failures + 1} times while training it"
            return {"failure": f"{died}, perhaps out of memory"}
        except MemoryError as error:
            return {"failure": f"out of memory in {RETRIES + 1} tries ({error})"}
        except RuntimeError as error:
            raise UserError(f"{error}, after {RETRIES + 1} tries; fix or stop the worker; {KEPT}") from None
        if "mistake" in result:
            raise UserError(result["mistake"])
        return result

    def _check(self) -> None:
        """Raise UserError if no worker can be expected any more, OSError if the connection is closed."""
        if self._client.status == "closed":
            raise OSError("the connection is closed")
        threads, one_was_ready = self._client.nthreads(), "about" in vars(self)
        if threads and one_was_ready:
            self._last_seen = time.monotonic()
            return
        reason = next(filter(None, [cluster.failure(self._client), *self._reasons.values()]), None)
        hopeless = reason and not threads and not one_was_ready
        if hopeless or time.monotonic() - self._last_seen > TIMEOUT:
            reason = reason or ("the connected ones do not answer" if threads else None)
            address = "" if self._client.cluster else self._client.scheduler.address
            advice = f"start one with `dask worker {address}`" if address else "run again to go on"
            raise UserError(f"there are no workers{f' ({reason})' if reason else ''}; {advice}")


@contextmanager
def _loss_as_user_error() -> Iterator[None]:
    """Turn the errors that Dask raises when the scheduler is gone into a UserError."""
    try:
        yield
    except (OSError, CancelledError, ClosedClientError) as error:
        raise UserError(f"the cluster is gone ({' '.join(str(error).split())}); {KEPT}") from None
