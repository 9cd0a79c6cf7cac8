"""On the client: the workers of one run of a stage. Each worker gets one task at a time."""

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

TIMEOUT = 60  # seconds to wait for a worker when all were lost; twice as long for the first
POLL = 0.2  # seconds between two checks for an idle worker
RETRIES = 2  # of a task that raised, such as for lack of memory or because of a broken package
LARGEST_MESSAGE = 4.2e9  # bytes; a message of Dask has 2**32 at most
LONGEST_MESSAGE = 300  # seconds that the transfer of a result may take
KEPT = "finished epochs are kept, run again to go on"

cloudpickle.register_pickle_by_value(plugin)
# A copy that is pickled by value: Dask's scheduler, which lacks this repository's code, unpickles it too
_call = cloudpickle.loads(cloudpickle.dumps(plugin.call))


class Workers:
    """All workers of a Dask client, including those that join later. A context manager that frees their data.

    Args:
        client: Dask's.
        files: the code that workers run, content by path.
        tasks: the name of the module among `files` that has a class `Session` and the tasks, which are
            functions (session, job).
        session: the arguments of `Session`; each worker creates one session.

    Attributes:
        versions: `plugin.versions` of this process; workers with others are rejected.
        waiting: called about once a second while no result arrives.

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
        self._plugin = plugin.StagePlugin(*stage, local=bool(client.cluster))
        self._first_tasks: dict[Future, dict] = {}  # "about", one for each worker
        self._reasons: dict[str, str] = {}  # for which workers were rejected
        self._last_seen = time.monotonic() + TIMEOUT  # when a worker was ready; the first gets more time

    def __enter__(self) -> "Workers":
        """Send code and data to all workers; Dask sends them to workers that join later."""
        self._client.subscribe_topic(self._name, lambda event: self._report_rejection(**event[1]))
        try:
            with _loss_in_one_line():
                self._reject_other_pythons()
                self._client.run_on_scheduler(plugin.unregister_abandoned)
                # OSError if a worker dies meanwhile; the other workers have the plugin, new ones will get it
                with suppress(OSError):
                    self._client.register_plugin(self._plugin)
                # The workers import the code while the client goes on
                count = max(1, len(self._client.nthreads()))
                self._first_tasks = {self._submit(None, "about", {}): {} for _ in range(count)}
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        if self._client.status == "running":
            with suppress(Exception):  # an earlier error matters more than one of the cleanup
                self._client.unregister_worker_plugin(self._name)

    def _reject_other_pythons(self) -> None:
        """Retire workers whose Python cannot unpickle the plugin that would check them.

        Raises:
            UserError: the scheduler has such a Python.
        """
        versions: Any = self._client.get_versions()
        ours = self.versions["Python"]
        for worker, about in {"scheduler": versions["scheduler"], **versions["workers"]}.items():
            theirs = ".".join(about["host"]["python"].split(".")[:2])
            if theirs == ours:
                continue
            reason = f"Python {theirs} where the client has {ours}"
            if worker == "scheduler":
                raise UserError(f"the scheduler has {reason}; start it anew")
            self._report_rejection(worker, reason)
            self._client.retire_workers([worker], close_workers=True)

    def _report_rejection(self, worker: str, reason: str) -> None:
        """Print why a worker was rejected, each reason once: a nanny may restart the worker many times."""
        if reason not in self._reasons:
            console.say(f"worker {worker} was sent away: {reason}")
            self._reasons[reason] = f"{worker}: {reason}"

    @cached_property
    def about(self) -> dict:
        """What `Session.about` is on the workers: on one with a GPU, if there is any.

        Raises:
            UserError: as for `results`.
        """
        answers: list[dict] = []
        try:
            for _, answer in self.results("about", deque()):
                answers.append(answer)
        except UserError:
            if not answers:  # else go on with the workers that answered
                raise
        if any("failure" in answer for answer in answers):
            mend = "set a smaller runtime.workers, or use a machine with more memory"
            raise UserError(f"no worker can start for want of memory; {mend}")
        return max(answers, key=lambda answer: answer["device"])

    def results(
        self, task: str, jobs: deque[dict], prepare: Callable[[dict], dict] = lambda job: job
    ) -> Iterator[tuple[dict, dict]]:
        """Run `task` on the workers for each of `jobs`, started in order; yield each job and its result.

        The caller may append to `jobs` between two results. A worker has no other task queued: when a worker
        dies, Dask blames all tasks that it had.

        Args:
            prepare: called with a job just before it is sent; returns what is sent.

        Raises:
            UserError: there are no workers any more, they cannot run the task, or the user made a mistake.
        """
        running = self._first_tasks if task == "about" else {}
        device = None if task == "about" else self.about["device"]
        done: queue.SimpleQueue[Future] = queue.SimpleQueue()
        for future in running:
            future.add_done_callback(done.put)
        self._last_seen = max(self._last_seen, time.monotonic())
        with _loss_in_one_line():
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
                except TimeoutError:  # the result was lost with its worker; Dask runs the task again
                    future.add_done_callback(done.put)
                else:
                    yield running.pop(future), result

    def _submit(self, device: str | None, task: str, job: dict) -> Future:
        return self._client.submit(_call, self._name, device, task, job, retries=RETRIES, pure=False)

    def _result(self, future: Future) -> dict:
        """Return the result of a task; TimeoutError if its transfer takes too long."""
        try:
            result = future.result(LONGEST_MESSAGE)
        except distributed.KilledWorker as error:
            died = f"the worker died {error.allowed_failures + 1} times while training it"
            return {"failure": f"{died}, as for want of memory"}
        except MemoryError as error:
            return {"failure": f"out of memory in {RETRIES + 1} tries ({error})"}
        except RuntimeError as error:
            raise UserError(f"{error}, after {RETRIES + 1} tries; mend or stop the worker; {KEPT}") from None
        if "mistake" in result:
            raise UserError(result["mistake"])
        return result

    def _check(self) -> None:
        """Raise UserError if there are no workers and none is expected, OSError if there is no scheduler."""
        if self._client.status == "closed":
            raise OSError("the connection is closed")
        threads, one_was_ready = self._client.nthreads(), "about" in vars(self)
        if threads and one_was_ready:
            self._last_seen = time.monotonic()
            return
        reason = next(filter(None, [cluster.failure(self._client), *self._reasons.values()]), None)
        hopeless = reason and not threads and not one_was_ready
        if hopeless or time.monotonic() - self._last_seen > TIMEOUT:
            reason = reason or ("those that are there do not answer" if threads else None)
            address = "" if self._client.cluster else self._client.scheduler.address
            mend = f"start one with `dask worker {address}`" if address else "run again to go on"
            raise UserError(f"there are no workers{f' ({reason})' if reason else ''}; {mend}")


@contextmanager
def _loss_in_one_line() -> Iterator[None]:
    """Turn the errors that Dask raises once the scheduler is gone into a UserError."""
    try:
        yield
    except (OSError, CancelledError, ClosedClientError) as error:
        raise UserError(f"the cluster is gone ({' '.join(str(error).split())}); {KEPT}") from None
