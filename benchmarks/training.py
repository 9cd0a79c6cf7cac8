"""Time one epoch of the tutorial's network, for several widths and several ways to train it, in turns.

Run as `python -m benchmarks.training`. Prints the median over the rounds and the ratio to `by_hand`.
"""

import argparse
import json
import statistics
import subprocess
import sys

from benchmarks.loops import WAYS

WIDTHS = (48, 128, 512)


def seconds(way: str, units: int) -> list[float]:
    """Run one way in a process of its own; return the seconds of its epochs, without the first one."""
    command = [sys.executable, "-m", "benchmarks.loops", way, str(units)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return json.loads(done.stdout)[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    measured: dict[tuple[str, int], list[float]] = {(way, units): [] for units in WIDTHS for way in WAYS}
    for _ in range(rounds):
        for way, units in measured:
            measured[way, units] += seconds(way, units)
    print("| units | " + " | ".join(WAYS) + " | this_project / by_hand | fit / this_project |")
    print("| --- " * (len(WAYS) + 3) + "|")
    for units in WIDTHS:
        median = {way: statistics.median(measured[way, units]) for way in WAYS}
        ratios = median["this_project"] / median["by_hand"], median["fit"] / median["this_project"]
        cells = [f"{value:.2f}" for value in (*median.values(), *ratios)]
        print(f"| {units} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
