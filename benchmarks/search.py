"""Time the tutorial's search and, before and after it, this project's, with the same settings and data.

After `dvc repro prepare` and `pip install -r benchmarks/requirements.txt`, run `python -m benchmarks.search`.
Each time includes the start of Python and the import of TensorFlow. The store is empty.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from benchmarks.loops import IMAGES
from benchmarks.training import seconds
from stages.base import splits

ROOT = Path(__file__).parent.parent
MEASURED_WIDTHS = (48, 256, 512)


def tutorial() -> dict:
    """Run the tutorial's search; return its result and the seconds of the whole process."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.tutorial", str(ROOT / "data" / "prepared")]
    done = subprocess.run(
        command, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    return {**json.loads(done.stdout.splitlines()[-1]), "seconds": time.perf_counter() - start}


def this_project() -> tuple[dict, pd.DataFrame]:
    """Run this project's search in a copy of it with an empty store; return its result and its trials."""
    with tempfile.TemporaryDirectory(dir=ROOT / "data") as temporary:
        folder = Path(temporary)
        shutil.copytree(ROOT / "stages", folder / "stages", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "dvc.yaml"):
            shutil.copy(ROOT / name, folder)
        (folder / "data").mkdir()
        (folder / "data/prepared").symlink_to(ROOT / "data/prepared")
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        params["tune"]["strategy"] = "hyperband"
        (folder / "params.yaml").write_text(yaml.safe_dump(params))
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "stages.tune"], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )
        taken = time.perf_counter() - start
        metrics = json.loads((folder / "metrics/tune.json").read_text())
        result = {
            "seconds": taken,
            "trials": metrics["trials"],
            "epochs": metrics["epochs"],
            "units": metrics["best"]["hyperparameters"]["units"],
        }
        return result, pd.read_csv(folder / "metrics/plots/trials.csv")


def arithmetic_seconds(trials: pd.DataFrame, images: int) -> float:
    """Return the seconds that the matrix products and Adam updates of all epochs take on one core.

    They are measured for `MEASURED_WIDTHS`, and linear in the number of units in between.
    """
    medians = [statistics.median(seconds("arithmetic", units)) for units in MEASURED_WIDTHS]
    slope, intercept = np.polyfit(MEASURED_WIDTHS, medians, 1)
    trained = trials.groupby("units")["epochs"].max()
    return float(
        sum(epochs * (intercept + slope * units) for units, epochs in trained.items()) * images / IMAGES
    )


def main() -> None:
    if not find_spec("tensorboard"):
        sys.exit("KerasTuner's own search imports TensorBoard; `pip install -r benchmarks/requirements.txt`")
    images = splits.about()["train"]
    (before, _), theirs, (after, trials) = (
        this_project(),
        tutorial(),
        this_project(),
    )  # before and after, since a machine's speed drifts
    ours = statistics.mean([before["seconds"], after["seconds"]])
    cores = len(os.sched_getaffinity(0))
    floor = arithmetic_seconds(trials, images) / cores
    print("| | seconds | trials | epochs | epochs per second | best units |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, run in (("this project", before), ("tutorial", theirs), ("this project", after)):
        rate = run["epochs"] / run["seconds"]
        cells = f"{run['seconds']:.1f} | {run['trials']} | {run['epochs']} | {rate:.2f} | {run['units']}"
        print(f"| {name} | {cells} |")
    print(f"\nratio: {theirs['seconds'] / ours:.1f}")
    share = f"{floor / ours:.0%} of this project's time"
    print(f"matrix products and Adam updates alone, on {cores} cores: {floor:.1f} s, {share}")


if __name__ == "__main__":
    main()
