"""Measure how much private memory the data costs each process: 6,000 images of 128 x 128 x 3 numbers.

Run as `python -m benchmarks.memory` (Linux). D is the size of all data, T that of the training part. Private
memory is what the kernel calls anonymous, so it leaves out the pages of mapped files, which processes share
and the kernel can drop. Each figure is the peak while the process ran, minus the peak with 60 images.
"""

import re
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).parent.parent
SIZES = (60, 6000)
SHAPE = (128, 128, 3)
PREPARE = """
import numpy as np
from stages import prepare
from stages.base import console
from stages.base.splits import Split
from stages.datasets import catalog
rng = np.random.default_rng(0)
def part(n):
    return Split(rng.random((n, *{shape}), dtype=np.float32), np.arange(n, dtype=np.int32) % 10)
catalog.DATASETS["images"] = lambda _: catalog.Dataset(part({train}), part({test}), {{}})
console.run(prepare.main)
"""


def peak_memory(command: list[str], folder: Path) -> dict[str, float]:
    """Run `command`; return the peak private memory in bytes, its own (`client`) and that of a `worker`."""
    with (folder / "log").open("w") as log:
        process = psutil.Popen(command, cwd=folder, stdout=log, stderr=log)
    most = {"client": 0.0, "worker": 0.0}

    def sample() -> None:
        for each in [process, *process.children(recursive=True)]:
            name = "client" if each == process else "worker"
            smaps = Path(f"/proc/{each.pid}/smaps_rollup").read_text()
            most[name] = max(most[name], 1024 * int(re.findall(r"^Anonymous: +(\d+)", smaps, re.M)[0]))

    while process.poll() is None:
        with suppress(psutil.Error, OSError):
            sample()
        time.sleep(0.02)
    assert process.returncode == 0, (folder / "log").read_text()
    return most


def measure(images: int) -> dict[str, float]:
    """Return the peak private memory in bytes of `prepare` and of the client and worker of `baseline`."""
    with tempfile.TemporaryDirectory(dir=ROOT / "data") as temporary:
        folder = Path(temporary)
        shutil.copytree(ROOT / "stages", folder / "stages", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "dvc.yaml"):
            shutil.copy(ROOT / name, folder)
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        params["prepare"]["dataset"], params["baseline"]["units"], params["train"]["epochs"] = "images", 4, 1
        (folder / "params.yaml").write_text(yaml.safe_dump(params))
        test = images // 6
        code = PREPARE.format(shape=SHAPE, train=images - test, test=test)
        prepare = peak_memory([sys.executable, "-c", code], folder)
        baseline = peak_memory([sys.executable, "-m", "stages.baseline"], folder)
        return {"prepare": prepare["client"], "client": baseline["client"], "each worker": baseline["worker"]}


def main() -> None:
    few, many = (measure(images) for images in SIZES)
    everything = 4.0 * SIZES[1] * SHAPE[0] * SHAPE[1] * SHAPE[2]
    training = everything * 5 / 6
    print(f"D {everything / 1e6:.0f} MB, T {training / 1e6:.0f} MB\n")
    print("| process | MB | of D or T |\n| --- | --- | --- |")
    for name, size in many.items():
        more, whole = size - few[name], ("D", everything) if name == "prepare" else ("T", training)
        print(f"| {name} | {more / 1e6:.0f} | {more / whole[1]:.2f} {whole[0]} |")


if __name__ == "__main__":
    main()
