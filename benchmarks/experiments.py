"""Run the experiments whose figures the documents quote, and keep their metrics in docs/experiments.json.

After `dvc repro` and a commit, run `python -m benchmarks.experiments [NAME ...]`. Then `pytest
tests/test_documents.py` names each sentence of the documents that no longer agrees with these metrics.
"""

import csv
import json
import subprocess
import sys
from pathlib import Path

from stages.review.commands import run

FILE = Path("docs/experiments.json")
GRID = ["tune.strategy=grid"]
EXPERIMENTS = {
    "bayesian": ["tune.strategy=bayesian"],
    "random": ["tune.strategy=random"],  # docs/report is the report of this one
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
    head = run("git", "rev-parse", "HEAD")
    for name in sys.argv[1:] or EXPERIMENTS:
        options = [part for override in EXPERIMENTS[name] for part in ("-S", override)]
        command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--force", "-n", name, *options]
        subprocess.run(command, check=True)
        revision = f"refs/exps/{head[:2]}/{head[2:]}/{name}"  # not that of another commit
        found = {each: json.loads(run("git", "show", f"{revision}:metrics/{each}.json")) for each in METRICS}
        trials = csv.DictReader(run("git", "show", f"{revision}:metrics/plots/trials.csv").splitlines())
        kept[name] = {"settings": EXPERIMENTS[name], **found, "trials": list(trials)}
        FILE.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
