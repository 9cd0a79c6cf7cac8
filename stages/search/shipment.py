"""The code on its way to Dask workers, which share no disk with whoever started the search.

This module is sent by value, so it uses nothing of this repository.
"""

import sys
from pathlib import Path

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
