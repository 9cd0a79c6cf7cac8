"""The comparison: what is counted, what is timed, what is said."""

import time

import pytest
import trainings

from stages.base import splits
from stages.base.console import decimals
from stages.comparison import comparison, measure
from stages.compute.worker import Session

HYPERPARAMETERS = {"units": 512, "dropout": 0.2, "learning_rate": 0.001}
WORSE = "inferior by more than 0.003"


def test_seconds_are_compared_in_turn():
    order = []

    def function(name, seconds):
        return measure.timed(lambda: (order.append(name), time.sleep(seconds)), times=2)

    seconds = measure.compare_seconds(
        ["baseline", "tuned"], [function("baseline", 0.02), function("tuned", 0.01)], 1000, rounds=5
    )
    assert order == ["baseline"] * 2 + ["tuned"] * 2 + order[4:]
    assert len(order) == 4 * 6
    assert 18 < seconds["baseline"] < 60
    assert seconds["ratio_low"] <= seconds["ratio"] <= seconds["ratio_high"]
    assert 1.2 < seconds["ratio"] < 2.5


@pytest.mark.parametrize(
    ("tuned", "ratios", "interval", "verdict", "sentence"),
    [
        (
            {"units": 208},
            (2.46, 1.93),
            (-0.0004, -0.0017, 0.0009),
            "non_inferior",
            "units 208 instead of units 512: 59 % fewer parameters, 1.9 times as fast per epoch, "
            f"test accuracy -0.0004 (95 % interval -0.0017 to +0.0009): not {WORSE}",
        ),
        (
            {"units": 16, "dropout": 0.5},
            (32, 0.5),
            (-0.04, -0.05, -0.03),
            "inferior",
            "units 16, dropout 0.5 instead of units 512, dropout 0.2: 97 % fewer parameters, 0.5 times as "
            f"fast per epoch, test accuracy -0.0400 (95 % interval -0.0500 to -0.0300): {WORSE}",
        ),
        (
            {},
            (1, 1),
            (0, 0, 0),
            "non_inferior",
            "the same hyperparameters: as many parameters, as fast per epoch, "
            f"test accuracy +0.0000 (95 % interval +0.0000 to +0.0000): not {WORSE}",
        ),
        (
            {"units": 1024},
            (0.5, 0.5),
            (0.002, 0.001, 0.003),
            "non_inferior",
            "units 1024 instead of units 512: 100 % more parameters, 0.5 times as fast per epoch, "
            f"test accuracy +0.0020 (95 % interval +0.0010 to +0.0030): not {WORSE}, and superior",
        ),
    ],
)
def test_the_sentence(tuned, ratios, interval, verdict, sentence):
    difference, low, high = interval
    compared = {
        "verdict": verdict,
        "superior": "yes" if low > 0 else "no",
        "margin": 0.003,
        "test_accuracy": {"difference": difference, "low": low, "high": high},
        "parameters": {"ratio": ratios[0]},
        "seconds_per_epoch": {"ratio": ratios[1]},
    }
    assert " ".join(comparison.sentence(compared, HYPERPARAMETERS, {**HYPERPARAMETERS, **tuned})) == sentence


def test_the_sentence_has_as_many_digits_as_the_margin_asks_for():
    compared = {
        "verdict": "inconclusive",
        "superior": "no",
        "margin": 2,
        "test_accuracy": {"difference": -1.234, "low": -43.21, "high": 40.749},
        "parameters": {"ratio": 0.01064},
        "seconds_per_epoch": {"ratio": 1},
    }
    tuned = {**HYPERPARAMETERS, "units": 4096}
    assert comparison.sentence(compared, HYPERPARAMETERS, tuned)[1:] == [
        "94 times as many parameters,",
        "as fast per epoch,",
        "test accuracy -1.2",
        "(95 % interval -43.2 to +40.7):",
        "too uncertain to say whether it is inferior by more than 2",
    ]


@pytest.mark.parametrize(
    ("scale", "form"),
    [(0.003, ".4f"), (0.02, ".3f"), (0.5, ".2f"), (2, ".1f"), (1000, ".0f"), (0, ".4f"), (2e-17, ".4f")],
)
def test_a_number_is_shown_to_two_digits_of_what_it_is_read_against(scale, form):
    assert decimals(scale) == form


def test_predictions_of_one_example_and_of_1000_are_timed(monkeypatch):
    """Also where the test part has fewer."""
    parts = dict(zip(("training", "test"), trainings.digits(), strict=True))
    data = {name: (part.inputs, part.labels) for name, part in parts.items()}
    digests = {name: splits.digest(part) for name, part in parts.items()}
    session = Session(data, digests, {}, batch_size=32, early_stopping=None, store=None)
    sizes, original = set(), measure.predictor

    def recording(network):
        predict = original(network)
        return lambda inputs: (sizes.add(len(inputs)), predict(inputs))

    monkeypatch.setattr(measure, "predictor", recording)
    networks = {"baseline": HYPERPARAMETERS, "tuned": {**HYPERPARAMETERS, "units": 16}}
    measured = measure.compare(session, {"networks": networks}, report=lambda epoch: None)
    assert sizes == {1, 1000}
    assert measured["parameters"] == {"baseline": 38_410, "tuned": 1_210}
    assert measured["seconds_per_epoch"]["ratio"] > 1
