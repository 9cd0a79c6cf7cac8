"""On the client: all workers for one run of a stage. Each is given one task at a time."""

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
POLL = 0.2  # seconds between two looks for a worker that has nothing to do
RETRIES = 2  # after a worker could not do a task, for want of memory, a broken package or the like
LARGEST_MESSAGE = 4.2e9  # bytes: one of Dask holds 2**32 at most
LONGEST_MESSAGE = 300  # seconds in which the result of a task that is done has to come
KEPT = "finished epochs are kept, run again to go on"

cloudpickle.register_pickle_by_value(plugin)
# A copy that pickle does not find by name: Dask's scheduler, without this repository's code, reads it too
_call = cloudpickle.loads(cloudpickle.dumps(plugin.call))


class Workers:
    """All workers of a client, and those that come later. A context manager: at its end they forget the data.

    Args:
        client: of Dask.
        files: the code for the workers, by path.
        tasks: the module in it with a class `Session` and functions of one, the tasks.
        session: the arguments of `Session`; each worker makes one.

    Attributes:
        versions: `plugin.versions` of this process, which all workers must have.
        waiting: called about once a second while a result is awaited.

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
        self._plugin = plugin.StagePlugin(*stage, alike=bool(client.cluster))
        self._asked: dict[Future, dict] = {}  # the first tasks, "about"
        self._reasons: dict[str, str] = {}  # why workers were sent away
        self._last_seen = time.monotonic() + TIMEOUT  # a worker that is ready; the first has longer

    def __enter__(self) -> "Workers":
        """Give code and data to all workers, and to those that come later."""
        self._client.subscribe_topic(self._name, lambda event: self._say_why(**event[1]))
        try:
            with _loss_in_one_line():
                self._send_other_pythons_away()
                self._client.run_on_scheduler(plugin.end_the_dead)
                # Of a worker that dies at it; the others, and those that come, have it
                with suppress(OSError):
                    self._client.register_plugin(self._plugin)
                # They import the code while the client goes on
                count = max(1, len(self._client.nthreads()))
                self._asked = {self._submit(None, "about", {}): {} for _ in range(count)}
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        if self._client.status == "running":
            with suppress(Exception):  # what has failed before is what counts
                self._client.unregister_worker_plugin(self._name)

    def _send_other_pythons_away(self) -> None:
        """Have workers leave that could not even read what is sent to check them; a later one cannot join.

        UserError if the scheduler could not.
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
            self._say_why(worker, reason)
            self._client.retire_workers([worker], close_workers=True)

    def _say_why(self, worker: str, reason: str) -> None:
        """Say once why workers are sent away: they may be started again and again."""
        if reason not in self._reasons:
            console.say(f"worker {worker} was sent away: {reason}")
            self._reasons[reason] = f"{worker}: {reason}"

    @cached_property
    def about(self) -> dict:
        """What all workers have to have in common, as `Session` says it: `device` is a GPU if one has it.

        UserError as for `results`.
        """
        answers: list[dict] = []
        try:
            for _, answer in self.results("about", deque()):
                answers.append(answer)
        except UserError:
            if not answers:  # else the others need not wait for one that does not answer
                raise
        if any("failure" in answer for answer in answers):
            mend = "set a smaller runtime.workers, or use a machine with more memory"
            raise UserError(f"no worker can start for want of memory; {mend}")
        return max(answers, key=lambda answer: answer["device"])

    def results(
        self, task: str, jobs: deque[dict], prepare: Callable[[dict], dict] = lambda job: job
    ) -> Iterator[tuple[dict, dict]]:
        """Have the workers do `task` for each of `jobs`, in their order; yield each job with its result.

        Those that the caller adds before it asks for the next result are done too. None waits in a worker's
        queue, where Dask would take it for the cause of the worker's death.

        Args:
            prepare: makes of a job, when it starts, what is sent.

        Raises:
            UserError: the workers are lost for good or cannot do it, or found a mistake of the user.
        """
        running = self._asked if task == "about" else {}
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
                except TimeoutError:  # it was lost with its worker, and Dask has another make it again
                    future.add_done_callback(done.put)
                else:
                    yield running.pop(future), result

    def _submit(self, device: str | None, task: str, job: dict) -> Future:
        return self._client.submit(_call, self._name, device, task, job, retries=RETRIES, pure=False)

    def _result(self, future: Future) -> dict:
        """Return what came of a task; TimeoutError if it does not come."""
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
        """Raise UserError if there are no workers and none can be expected, OSError if no scheduler."""
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
    """Turn what Dask raises where there is no scheduler any more into a UserError."""
    try:
        yield
    except (OSError, CancelledError, ClosedClientError) as error:
        raise UserError(f"the cluster is gone ({' '.join(str(error).split())}); {KEPT}") from None
