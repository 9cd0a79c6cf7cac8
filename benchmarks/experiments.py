"""Runs the experiments whose figures the documents quote, and keeps their metrics in docs/experiments.json.

After `dvc repro` and a commit: `python -m benchmarks.experiments [NAME ...]`. Then `pytest
tests/test_documents.py` names each sentence of the documents that is not of these metrics any more.
"""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

from stages.review.commands import resolve

FILE = Path("docs/experiments.json")
GRID = ["tune.strategy=grid"]
EXPERIMENTS = {
    "bayesian": ["tune.strategy=bayesian"],
    "longer": ["retrain.epochs=12"],
    "units_48": [*GRID, "tune.space.units.min=48", "tune.space.units.max=48", "tune.tolerance=1"],
    "dropout": [
        *GRID,
        "tune.executions_per_trial=3",
        "~tune.space.units",
        "+tune.space.dropout={type: float, min: 0.0, max: 0.5, step: 0.1}",
    ],
    "fashion_mnist": ["prepare.dataset=fashion_mnist"],
}
METRICS = ("baseline", "tune", "retrain", "comparison")


def main() -> None:
    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name in sys.argv[1:] or EXPERIMENTS:
        options = [part for override in EXPERIMENTS[name] for part in ("-S", override)]
        command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--force", "-n", name, *options]
        subprocess.run(command, check=True)
        commit = resolve(name)[1]

        def read(path: str, commit: str = commit) -> str:
            return subprocess.run(
                ["git", "show", f"{commit}:{path}"], check=True, stdout=subprocess.PIPE, text=True
            ).stdout

        found = {metrics: json.loads(read(f"metrics/{metrics}.json")) for metrics in METRICS}
        trials = list(csv.DictReader(io.StringIO(read("metrics/plots/trials.csv"))))
        kept[name] = {"settings": EXPERIMENTS[name], **found, "trials": trials}
        FILE.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
