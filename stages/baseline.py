"""Train the network with the numbers that somebody typed.

Reads `seed`, `baseline` and `train`; writes metrics/baseline.json, metrics/plots/baseline.csv and data/baseline.
"""

from stages import console, params
from stages.protocol import in_words, train_and_test


def main() -> None:
    settings = params.load()
    print(in_words("baseline", train_and_test("baseline", settings.baseline, settings)))


if __name__ == "__main__":
    console.run(main)
