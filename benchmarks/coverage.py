"""Simulate experiments with a known truth, to see how far to trust the interval and the verdict.

Run as `python -m benchmarks.coverage`. It prints three tables. First: how often the 95 % interval covers the
true difference of two equally good networks. Second: how often a network that is worse by exactly the margin
passes as non-inferior, where few answers differ. Third: how often the verdict is too good for the best of
several networks, if that was chosen by the same test examples.
"""

from functools import partial

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from stages.comparison.inference import difference_of_scores, verdict
from stages.training.evaluation import jackknife, of_groups

EXPERIMENTS = 10_000
# Scores of a whole set, for which `evaluation.jackknife` is used: 2 % of 2,000 examples are positive
WHOLE = ("AUC, 2 % positives", "F1, 2 % positives")
# Scores of 1,000 examples in groups of 10; the examples of a group share half of their variance
GROUPED = ("accuracy, groups", "accuracy, groups not given", "AUC, groups")
# Standard deviations between seeds, between examples that suit one network better, and of the residual; and
# the number of examples. They are of the log-odds of a right answer or, with a residual, of the score itself.
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
    """Return scores, (networks, seeds, examples); all networks but the first are worse by `worse`."""
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
    draw = partial(scores, rng, 2, seeds, case)
    if case in WHOLE + GROUPED:
        draw = partial(whole_scores if case in WHOLE else grouped_scores, rng, seeds, case)
    intervals = (difference_of_scores(*draw()) for _ in range(experiments))
    return float(np.mean([interval.low <= 0 <= interval.high for interval in intervals]))


def whole_scores(rng: np.random.Generator, seeds: int, case: str) -> np.ndarray:
    """Return pseudo-values of two equally good networks, (networks, seeds, parts); their seeds differ."""
    labels = np.arange(2000) % 50 == 0
    hidden = rng.standard_normal(2000) + 2 * labels  # how positive an example looks to all networks
    of_network = rng.standard_normal((2, 1, 2000))
    outputs = hidden + 0.5 * of_network + rng.standard_normal((2, seeds, 2000))
    outputs += rng.normal(0, 0.1, (2, seeds, 1)) * labels
    function = auc if case == WHOLE[0] else f1
    return np.array([[jackknife(function, labels, seed) for seed in network] for network in outputs])


def grouped_scores(rng: np.random.Generator, seeds: int, case: str) -> np.ndarray:
    """Return `evaluation.values` of two equally good networks, (networks, seeds, n), for grouped examples."""
    groups = np.repeat(np.arange(100), 10)

    def correlated(*shape: int) -> np.ndarray:
        of_groups = rng.standard_normal((*shape, 100))[..., groups]
        return np.sqrt(0.5) * (of_groups + rng.standard_normal((*shape, 1000)))

    labels = (rng.random(100) < 0.3)[groups]
    outputs = 2 * labels + correlated() + 0.7 * correlated(2, 1)
    outputs = outputs + 0.5 * rng.standard_normal((2, seeds, 1000))
    outputs += rng.normal(0, 0.1, (2, seeds, 1)) * labels
    given = None if "not given" in case else groups
    if "AUC" in case:
        return np.array([[jackknife(auc, labels, seed, given) for seed in network] for network in outputs])
    return np.array([[of_groups((seed > 1) == labels, given) for seed in network] for network in outputs])


def auc(labels: np.ndarray, outputs: np.ndarray) -> float:
    """Return the area under the ROC curve, from ranks (Mann and Whitney 1947)."""
    positives = labels.sum()
    above = rankdata(outputs)[labels].sum() - positives * (positives + 1) / 2
    return above / positives / (len(labels) - positives)


def f1(labels: np.ndarray, outputs: np.ndarray) -> float:
    """Return the harmonic mean of precision and recall, where outputs above 3 are predicted positives."""
    predicted = outputs > 3
    return 2 * (predicted & labels).sum() / (predicted.sum() + labels.sum())


def passes(answers: int, wins: int, seeds: int = 6, experiments: int = EXPERIMENTS) -> float:
    """Return how often a network passes that is worse by exactly the margin, which is `answers` in 1,000.

    With all its seeds, the network is right on about `wins` examples that the baseline has wrong, and wrong
    on about `wins` + `answers` examples that the baseline has right.
    """
    rng = np.random.default_rng(answers)
    passed = 0
    for _ in range(experiments):
        drawn = rng.random(1000)
        lost, won = drawn < (wins + answers) / 1000, drawn > 1 - wins / 1000
        tables = (np.broadcast_to(right, (seeds, 1000)) for right in (~won, ~lost))
        passed += verdict(difference_of_scores(*tables), answers / 1000) == "non_inferior"
    return passed / experiments


def best_of(networks: int, seeds: int = 6, experiments: int = EXPERIMENTS // 5) -> dict[str, float]:
    """Return how often the best of `networks` by test score gets a verdict that is too good.

    These are `superior`, although all networks are as good as the baseline, and `non_inferior`, although all
    are worse by the margin.
    """
    rng = np.random.default_rng(networks)
    case, margin = "a float score, both", 0.3
    counts = {"superior": 0, "non_inferior": 0}
    for _ in range(experiments):
        for name, worse in (("superior", 0.0), ("non_inferior", margin)):
            baseline, *others = scores(rng, 1 + networks, seeds, case, worse)
            interval = difference_of_scores(baseline, max(others, key=np.mean))
            counts[name] += interval.low > 0 if name == "superior" else verdict(interval, margin) == name
    return {name: count / experiments for name, count in counts.items()}


def main() -> None:
    replicates = (3, 4, 5, 6, 10)
    counts = dict.fromkeys(CASES, EXPERIMENTS) | dict.fromkeys(WHOLE + GROUPED, EXPERIMENTS // 20)
    table = {
        f"{n} replicates": [f"{100 * coverage(case, n, count):.1f} %" for case, count in counts.items()]
        for n in replicates
    }
    print(pd.DataFrame(table, index=pd.Index(counts, name="case")).to_string(), end="\n\n")
    margins = (3, 5, 10, 20)
    table = {f"{n} answers": [f"{100 * passes(n, wins):.1f} %" for wins in (0, 2, 10)] for n in margins}
    print(pd.DataFrame(table, index=pd.Index([0, 2, 10], name="wins")).to_string(), end="\n\n")
    networks = (1, 2, 5, 10, 20)
    table = pd.DataFrame([best_of(count) for count in networks], index=pd.Index(networks, name="networks"))
    print(table.map(lambda share: f"{100 * share:.1f} %").to_string())


if __name__ == "__main__":
    main()
