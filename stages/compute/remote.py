"""What a Dask task does before this repository's code is there: checks the worker, unpacks the code, and trains with it.

This module is sent by value, since a worker that has no code yet must be able to read it. It imports nothing of the repository.
"""

import hashlib
import importlib
import os
import pickle
import sys
import threading
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cloudpickle
from distributed import get_worker

CODES_KEPT = 3  # on a worker, beside the one that trains
PACKAGES = ("tensorflow", "keras", "numpy")  # whose versions decide what a training comes to


def digest(code: dict[str, bytes]) -> str:
    """Return the name of `code`: a hash of its files' paths and contents."""
    content = hashlib.sha256()
    for path, file in sorted(code.items()):
        content.update(f"{path}\0{len(file)}\0".encode() + file)
    return content.hexdigest()


def environment() -> dict[str, str]:
    """Return what must be the same on all machines of a search: the versions of `PACKAGES`, and the device, CPU or GPU."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    os.environ["KERAS_BACKEND"] = "tensorflow"  # which TensorFlow imports
    try:
        found["device"] = "GPU" if importlib.import_module("tensorflow").config.list_physical_devices("GPU") else "CPU"
    except ImportError as error:
        found["device"] = f"none ({error})"
    return found


def difference(here: dict[str, str], there: dict[str, str]) -> str:
    """Return in what a worker's environment `there` differs from the client's, nothing if in nothing."""
    return ", ".join(f"{name} {there[name]} where the client has {here[name]}" for name in here if here[name] != there[name])


def prepare_worker(dask_worker) -> dict[str, str]:
    """Set up the worker that this runs on and return its `environment`.

    A worker that Dask pauses, because its memory is above a share of its limit, would never go on: what fills it is
    TensorFlow and the data, which Dask cannot write to disk. So it is not paused; a nanny still ends one that is at its limit.
    """
    dask_worker.memory_manager.memory_pause_fraction = False
    dask_worker.memory_manager.memory_spill_fraction = False
    if dask_worker.status.name == "paused":
        dask_worker.status = type(dask_worker.status).running
    if not hasattr(dask_worker, "stages_environment"):
        dask_worker.stages_environment = environment()
    return dask_worker.stages_environment


def run(
    name: str,
    code: dict[str, bytes],
    expected: dict[str, str],
    arguments: bytes,
    data: dict,
    checkpoint: dict | None,
    topic: tuple[str, str],
):
    """Train with `code` on this worker, and log the epochs reached as events of `topic[0]`: (`topic[1]`, epoch).

    Returns:
        What stages/compute/worker.py's `train` returns; {"worker", "broken"}, its address and why, if this worker cannot train;
        {"mistake"}, what the user has to mend.
    """
    worker = get_worker()
    try:
        differs = difference(expected, prepare_worker(worker))
        if differs:
            raise ImportError(differs)
        state = vars(worker).setdefault("stages_code", {"lock": threading.Lock(), "active": None, "modules": {}})
        with state["lock"]:  # a process trains one network at a time, whatever its threads
            _activate(state, name, code, Path(worker.local_directory).absolute())
            train = importlib.import_module("stages.compute.worker").train
            settings, job = pickle.loads(arguments)  # noqa: S301 - this search's own, from its own process
            task = worker.get_current_task()

            def progress(epoch: int) -> None:
                worker.log_event(topic[0], (topic[1], epoch))
                if worker.state.tasks[task].state == "cancelled":
                    raise InterruptedError("the search has ended")

            return train(settings, job, data, checkpoint, progress)
    except Exception as error:
        if type(error).__name__ == "UserError":
            return {"mistake": str(error)}
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return {"worker": worker.address, "broken": reason}


def _activate(state: dict, name: str, code: dict[str, bytes], scratch: Path) -> None:
    """Make `import stages` mean `code`, and keep the modules of the code that it meant before for when that is back."""
    if state["active"] == name:
        return
    if digest(code) != name:
        raise ImportError(f"the code that arrived is not {name}")
    folder = scratch / name
    try:
        for path, content in code.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
    except OSError as error:  # of a full disk, and does not name the file
        raise OSError(error.errno, error.strerror, str(folder)) from None
    tops = {path.partition("/")[0].removesuffix(".py") for path in code} | state.get("tops", set())
    loaded = {module: sys.modules.pop(module) for module in list(sys.modules) if module.partition(".")[0] in tops}
    if state["active"]:
        sys.path.remove(str(scratch / state["active"]))
        state["modules"][state["active"]] = loaded
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    sys.modules.update(state["modules"].pop(name, {}))
    while len(state["modules"]) > CODES_KEPT:
        del state["modules"][next(iter(state["modules"]))]
    state["active"], state["tops"] = name, tops


cloudpickle.register_pickle_by_value(sys.modules[__name__])
# Copies that pickle cannot find under their names are ones that it has to send by value
run_anywhere, prepare_anywhere = cloudpickle.loads(cloudpickle.dumps((run, prepare_worker)))
