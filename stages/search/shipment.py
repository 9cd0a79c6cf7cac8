"""The code on its way to Dask workers, which share no disk with whoever started the search.

What is in this module is sent by value: a worker that has no code yet can read it, and so can the scheduler, which reads all
tasks and never has the code.
"""

import pickle
import sys
from pathlib import Path

import cloudpickle
from distributed import WorkerPlugin


class Shipment(WorkerPlugin):
    """Makes `import stages` find this code on each worker, also on those that join or start again later.

    Attributes:
        name: a hash of the code.
        files: the content of each file of the package `stages`, by path.
    """

    def __init__(self, name: str, files: dict[str, bytes]):
        self.name, self.files = name, files

    def setup(self, worker) -> None:
        """Write the files to the worker's own folder, unless it has the same ones."""
        package = sys.modules.get("stages")
        here = Path(package.__path__[0]).parent if package else None
        if here and all((here / name).is_file() and (here / name).read_bytes() == file for name, file in self.files.items()):
            return
        folder = Path(worker.local_directory).absolute() / self.name
        for name, file in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(file)
        for name in [name for name in sys.modules if name.partition(".")[0] == "stages"]:
            del sys.modules[name]
        sys.path.insert(0, str(folder))


def _train(arguments: bytes, data, state):
    from stages.search.worker import train

    return train(data, *pickle.loads(arguments), state)  # noqa: S301 - this search's own, from its own process


cloudpickle.register_pickle_by_value(sys.modules[__name__])
# A copy that pickle cannot find under its name is one that it has to send by value
train = cloudpickle.loads(cloudpickle.dumps(_train))
