"""How far to trust the interval and verdict: experiments with a known truth, `python -m benchmarks.coverage`.

First, how often the 95 % interval covers the true difference of two equally good networks. Second, what the
verdict is worth for the best of several networks, chosen by the test examples that the verdict is about.
"""

import numpy as np
import pandas as pd

from stages.comparison.inference import difference_of_scores, verdict

EXPERIMENTS = 10_000
# Standard deviations of the log-odds of a right answer (of the score where it is no right or wrong) between
# seeds, between examples that suit one network better, and of what is left; and the number of examples
CASES = {
    "seeds alike": (0, 0, 0, 1000),
    "seeds differ": (0.3, 0, 0, 1000),
    "seeds differ much": (1, 0, 0, 1000),
    "examples suit one network": (0, 1, 0, 1000),
    "both": (0.3, 1, 0, 1000),
    "both, 300 examples": (0.3, 1, 0, 300),
    "a float score, seeds differ": (0.05, 0, 1, 300),
    "a float score, both": (0.05, 0.5, 1, 300),
}


def scores(rng: np.random.Generator, networks: int, seeds: int, case: str, worse: float = 0.0) -> np.ndarray:
    """Return (networks, seeds, examples): scores of equally good networks, the first better by `worse`."""
    of_seeds, of_examples, residual, examples = CASES[case]
    effects = of_seeds * rng.standard_normal((networks, seeds, 1)) + of_examples * rng.standard_normal(
        (networks, 1, examples)
    )
    effects[1:] -= worse
    if residual:
        return effects + residual * rng.standard_normal((networks, seeds, examples))
    difficulty = rng.normal(7, 3, examples)  # 2 to 3 % errors, as with MNIST
    return rng.random((networks, seeds, examples)) < 1 / (1 + np.exp(-difficulty - effects))


def coverage(case: str, seeds: int, experiments: int = EXPERIMENTS) -> float:
    """Return the share of intervals that cover 0, the true difference of two equally good networks."""
    rng = np.random.default_rng(seeds)
    intervals = (difference_of_scores(*scores(rng, 2, seeds, case)) for _ in range(experiments))
    return float(np.mean([interval.low <= 0 <= interval.high for interval in intervals]))


def best_of(networks: int, seeds: int = 5, experiments: int = EXPERIMENTS // 5) -> dict[str, float]:
    """Return how often the best of `networks` by test score looks better than it is, against one baseline.

    `superior` although all are as good as the baseline; `non_inferior` although all are worse by the margin.
    """
    rng = np.random.default_rng(networks)
    case, margin = "a float score, both", 0.3
    found = {"superior": 0, "non_inferior": 0}
    for _ in range(experiments):
        for name, worse in (("superior", 0.0), ("non_inferior", margin)):
            baseline, *others = scores(rng, 1 + networks, seeds, case, worse)
            interval = difference_of_scores(baseline, max(others, key=np.mean))
            found[name] += interval.low > 0 if name == "superior" else verdict(interval, margin) == name
    return {name: count / experiments for name, count in found.items()}


def main() -> None:
    replicates = (3, 4, 5, 7, 10)
    table = {f"{n} replicates": [f"{100 * coverage(case, n):.1f} %" for case in CASES] for n in replicates}
    print(pd.DataFrame(table, index=pd.Index(CASES, name="case")).to_string(), end="\n\n")
    counts = (1, 2, 5, 10, 20)
    table = pd.DataFrame([best_of(count) for count in counts], index=pd.Index(counts, name="networks"))
    print(table.map(lambda share: f"{100 * share:.1f} %").to_string())


if __name__ == "__main__":
    main()
