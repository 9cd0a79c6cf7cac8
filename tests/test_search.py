"""The search: oracles, the loop that asks, evaluates and reports, the choice of a trial."""

from dataclasses import replace

import keras_tuner
import numpy as np
import pandas as pd
import pytest

from stages.base import params
from stages.base.console import UserError
from stages.base.params import Tune
from stages.base.splits import Split
from stages.search import oracles, tuning
from stages.search.scoring import CrossValidation, Evaluation, Holdout, evaluate, folds, trainings
from stages.search.search import Trial, as_good, best, rehearse, search
from stages.training.checkpoint import Checkpoint
from stages.training.evaluation import EVALUATED, LOSS, SCORE
from stages.training.score import NAME

TUNE = {  # the tutorial's search, whatever params.yaml says; `formula` takes the place of the network
    "strategy": "hyperband",
    "objective": SCORE,
    "selection": "tolerance",
    "tolerance": 0.003,
    "max_epochs": 10,
    "executions_per_trial": 1,
    "early_stopping": None,
    "space": {"units": {"type": "int", "min": 16, "max": 512, "step": 16}},
    "hyperband": {"factor": 3, "hyperband_iterations": 1},
    "random": {"max_trials": 20},
    "bayesian": {
        "max_trials": 15,
        "num_initial_points": None,
        "alpha": 0.0001,
        "beta": 2.6,
        "trials_at_once": 2,
    },
    "grid": {"max_trials": None},
    "sklearn": {
        "max_trials": 8,
        "num_initial_points": None,
        "alpha": 0.0001,
        "beta": 2.6,
        "trials_at_once": 2,
        "cv": 5,
    },
}


def tune(**changes) -> Tune:
    return Tune.model_validate({**TUNE, **changes})


def formula(asked):
    """A stand-in for trainings, ended in reverse order: scores are best at 200 units and rise with epochs."""
    for training, epochs in reversed(asked.items()):
        distance = abs(training.hyperparameters["units"] - 200) / 100
        accuracy = [1 / (1 + distance + 1 / epoch) for epoch in range(1, epochs + 1)]
        loss = [-value for value in accuracy]
        error = [0.02] * epochs
        history = {NAME: accuracy, "loss": loss}
        history |= dict(zip(EVALUATED, (accuracy, error, loss, error), strict=True))
        checkpoint = Checkpoint(epochs, [], [], history, [0.1] * epochs, training.hyperparameters["units"])
        yield training, checkpoint, {}


def holdout(objective=SCORE, **changes) -> Holdout:
    settings = {"subsets": {"holdout": (np.arange(3), np.arange(3, 5))}, "seeds": [0], "early_stopping": None}
    return Holdout(objective=objective, **{**settings, **changes})


def run(settings: Tune, seed=0, function=formula, baseline=None, **changes):
    """Return the oracle's trials, without the baseline's, and the oracle."""
    oracle, own = oracles.create(settings, seed), {"units": 512, "fixed": 1, **(baseline or {})}
    trials = search(oracle, function, holdout(settings.objective, **changes), settings, own)
    assert (trials[0].number, trials[0].hyperparameters, trials[0].budget) == (0, own, settings.max_epochs)
    return trials[1:], oracle


@pytest.mark.parametrize("strategy", ["hyperband", "random", "bayesian", "grid", "sklearn"])
def test_two_searches_with_the_same_seed_are_equal(strategy):
    blocks = {name: {**tune().model_dump()[name], "max_trials": 8} for name in ("bayesian", "sklearn")}
    settings = tune(strategy=strategy, **blocks)
    first, _ = run(settings)
    again, _ = run(settings)
    assert first == again
    assert [trial.number for trial in first] == list(range(1, len(first) + 1))
    assert all(trial.hyperparameters["units"] in range(16, 513, 16) for trial in first)
    assert all(trial.hyperparameters["fixed"] == 1 for trial in first)
    if strategy != "grid":  # which has no randomness
        assert run(settings, seed=1)[0] != first
    if strategy != "hyperband":
        assert {trial.budget for trial in first} == {10}
    budgets, epochs = rehearse(settings, 0)
    assert [trial.budget for trial in first] == budgets
    if strategy == "hyperband":
        longest = {
            trial.hyperparameters["units"]: trial.budget
            for trial in sorted(first, key=lambda trial: trial.budget)
        }
        assert epochs == sum(longest.values()) < sum(budgets)
    else:
        assert epochs == 10 * len(first)


@pytest.mark.parametrize("strategy", ["hyperband", "bayesian", "grid"])
def test_the_baseline_is_trial_0_and_the_oracle_does_not_know_of_it(strategy):
    """This holds outside the space too. If the oracle asks for the baseline, it is trained only once."""
    block = {**TUNE[strategy], "max_trials": 4} if strategy == "bayesian" else TUNE[strategy]
    settings = tune(strategy=strategy, **{strategy: block})
    asked = []

    def count(trainings):
        asked.append(dict(trainings))
        yield from formula(trainings)

    inside, oracle = run(settings, function=count)
    outside, _ = run(settings, baseline={"units": 7})
    assert inside == outside
    assert len(oracle.trials) == len(inside)
    if strategy == "grid":
        assert len(asked[0]) == 32
        (training,) = [training for training in asked[0] if training.hyperparameters["units"] == 512]
        assert asked[0][training] == 10


def test_hyperband_is_kerastuners():
    """30 trials for max_epochs 10, factor 3; a promoted trial has equal hyperparameters, but more epochs."""
    trials, oracle = run(tune())
    assert [trial.budget for trial in trials] == [2] * 12 + [4] * 6 + [10] * 4 + [4] * 4 + [10] * 4
    assert len(oracle.trials) == 30
    promoted = {trial.hyperparameters["units"] for trial in trials[22:26] if trial.budget == 4}
    assert promoted <= {trial.hyperparameters["units"] for trial in trials[:12]}
    assert best(trials, SCORE) == trials[int(oracle.get_best_trials()[0].trial_id)]


@pytest.mark.parametrize(("strategy", "step"), [("grid", 2), ("bayesian", None), ("random", None)])
def test_integers_on_a_log_scale_are_integers_within_their_bounds(strategy, step):
    """The best is at a bound, where KerasTuner's rounding would leave the space."""
    dimension = {"type": "int", "min": 16, "max": 199, "step": step, "sampling": "log"}
    trials, _ = run(tune(strategy=strategy, space={"units": dimension}))
    tried = [trial.hyperparameters["units"] for trial in trials]
    assert all(type(units) is int and 16 <= units <= 199 for units in tried)
    assert len(set(tried)) > 3
    if strategy == "bayesian":
        assert 199 in tried


def test_each_step_of_a_float_has_its_place():
    """In KerasTuner's own arithmetic, 0.2 and 0.3 would be the same step of 0.1."""
    settings = tune(strategy="grid", space={"units": {"type": "float", "min": 0.0, "max": 0.5, "step": 0.1}})
    trials, oracle = run(settings)
    assert sorted(trial.hyperparameters["units"] for trial in trials) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    (dimension,) = oracle.hyperparameters.space
    assert [dimension.value_to_prob(step / 10) for step in range(6)] == pytest.approx(
        (np.arange(6) + 0.5) / 6
    )


def test_the_best_trial_has_the_best_objective():
    trials, oracle = run(tune(strategy="grid", objective=LOSS))
    assert oracle.objective.direction == "min"
    assert len(trials) == 32
    assert best(trials, LOSS).hyperparameters["units"] in (192, 208)


def test_bayesian_finds_what_random_would_need_luck_for():
    trials, _ = run(tune(strategy="bayesian"))
    assert abs(best(trials, SCORE).hyperparameters["units"] - 200) <= 24


def test_trials_at_once_change_what_bayesian_learns_from():
    block = {**tune().bayesian.model_dump(), "max_trials": 8}
    one, three = (run(tune(strategy="bayesian", bayesian={**block, "trials_at_once": n}))[0] for n in (1, 3))
    assert len(one) == len(three) == 8
    assert one != three


def test_a_small_space_ends_the_search():
    space = {"units": {"type": "choice", "values": [16, 32]}}
    for strategy in ("hyperband", "random", "grid"):
        trials, _ = run(tune(strategy=strategy, space=space))
        assert {trial.hyperparameters["units"] for trial in trials} == {16, 32}


@pytest.mark.parametrize(("trials", "initial", "noted"), [(6, None, True), (7, None, False), (7, 7, True)])
def test_a_bayesian_search_that_is_only_random_is_noted(trials, initial, noted):
    """By default, KerasTuner draws three trials for each hyperparameter at random."""
    block = {**TUNE["bayesian"], "max_trials": trials, "num_initial_points": initial}
    space = {**TUNE["space"], "layers": {"type": "int", "min": 1, "max": 3}}
    settings = tune(strategy="bayesian", bayesian=block, space=space)
    note = oracles.only_random(oracles.create(settings, 0), settings)
    assert (note is not None) == noted
    if note:
        assert f"first {initial or 6} trials at random, and tune.bayesian.max_trials is {trials};" in note
    assert oracles.only_random(oracles.create(tune(), 0), tune()) is None


def test_all_kinds_of_hyperparameters():
    """Bounds are included, even if steps of 0.1 do not add up; floats are short, log samples in bounds."""
    space = params.Tune.model_validate(
        {
            **tune().model_dump(),
            "space": {
                "units": {"type": "int", "min": 1, "max": 64, "step": 2, "sampling": "log"},
                "dropout": {"type": "float", "min": 0.0, "max": 0.5, "step": 0.1},
                "learning_rate": {"type": "float", "min": 1e-4, "max": 1e-2, "sampling": "log"},
                "batch_normalisation": {"type": "boolean"},
                "activation": {"type": "choice", "values": ["relu", "tanh"]},
            },
            "strategy": "random",
            "random": {"max_trials": 300},
        }
    )
    seen = [trial.hyperparameters for trial in run(space)[0]]
    assert {tried["units"] for tried in seen} == {1, 2, 4, 8, 16, 32, 64}
    assert {tried["dropout"] for tried in seen} == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5}
    assert all(1e-4 <= tried["learning_rate"] <= 1e-2 for tried in seen)
    assert 0.4 < np.mean([tried["learning_rate"] < 1e-3 for tried in seen]) < 0.6
    assert {tried["batch_normalisation"] for tried in seen} == {True, False}
    assert {tried["activation"] for tried in seen} == {"relu", "tanh"}


def layers(strategy: str, *, depth: dict | None = None, **block) -> Tune:
    """A search for 1 to 3 layers, each with one of two widths."""
    space = {"layers": {"type": "int", "min": 1, "max": 3}}
    for layer in (1, 2, 3):
        when = {"when": {"layers": list(range(layer, 4))}} if layer > 1 else {}
        space[f"width_{layer}"] = {"type": "choice", "values": [8, 16], **when, **(depth or {})}
    return tune(strategy=strategy, space=space, **{strategy: {**TUNE[strategy], **block}})


def by_width(asked):
    """A stand-in for trainings: scores rise with the number of layers and with their widths."""
    for training, epochs in asked.items():
        widths = [value for name, value in training.hyperparameters.items() if name.startswith("width")]
        score = [sum(widths) / 48 - 1 / epoch for epoch in range(1, epochs + 1)]
        error, loss = [0.02] * epochs, [-value for value in score]
        history = {
            NAME: score,
            "loss": loss,
            **dict(zip(EVALUATED, (score, error, loss, error), strict=True)),
        }
        yield training, Checkpoint(epochs, [], [], history, [0.1] * epochs, sum(widths)), {}


BLOCKS = {"grid": {}, "random": {"max_trials": 40}, "bayesian": {"max_trials": 12}, "hyperband": {}}


@pytest.mark.parametrize("strategy", BLOCKS)
def test_a_trial_has_the_widths_of_the_layers_that_it_has_and_no_others(strategy):
    """The baseline's widths do not matter. A grid has 2 + 4 + 8 points."""
    baseline = {"layers": 3, "width_1": 9, "width_2": 9, "width_3": 9}
    settings = layers(strategy, **BLOCKS[strategy])
    trials, _ = run(settings, function=by_width, baseline=baseline)
    tried = [{n: v for n, v in trial.hyperparameters.items() if n in baseline} for trial in trials]
    for hyperparameters in tried:
        names = [f"width_{layer + 1}" for layer in range(hyperparameters["layers"])]
        assert list(hyperparameters) == ["layers", *names]
        assert {hyperparameters[name] for name in names} <= {8, 16}
    distinct = {tuple(hyperparameters.items()) for hyperparameters in tried}
    if strategy == "grid":
        assert len(trials) == len(distinct) == 14
        assert rehearse(settings, 0) == ([10] * 14, 140)
    assert {hyperparameters["layers"] for hyperparameters in tried} == {1, 2, 3}
    assert run(settings, function=by_width, baseline=baseline)[0] == trials


@pytest.mark.parametrize("strategy", BLOCKS)
def test_a_condition_on_a_hyperparameter_with_a_condition_needs_both(strategy):
    """A grid has four points: adam, sgd without nesterov, and sgd with nesterov of two strengths."""
    optimizer = {"type": "choice", "values": ["adam", "sgd"]}
    nesterov = {"type": "boolean", "when": {"optimizer": ["sgd"]}}
    strength = {"type": "choice", "values": [0.5, 0.9], "when": {"nesterov": [True]}}
    space = {"optimizer": optimizer, "nesterov": nesterov, "strength": strength}
    settings = tune(strategy=strategy, space=space, **{strategy: {**TUNE[strategy], **BLOCKS[strategy]}})
    trials, _ = run(settings)
    wanted = [
        {"optimizer": "adam"},
        {"optimizer": "sgd", "nesterov": False},
        *({"optimizer": "sgd", "nesterov": True, "strength": value} for value in (0.5, 0.9)),
    ]
    tried = [{n: v for n, v in trial.hyperparameters.items() if n in space} for trial in trials]
    assert all(hyperparameters in wanted for hyperparameters in tried)
    assert all(hyperparameters in tried for hyperparameters in wanted)
    if strategy == "grid":
        assert len(tried) == 4
    table = tuning.space_rows(trials, trials[0], settings)
    assert len(table) == sum(map(len, tried))
    ends = {"optimizer": ("adam", "sgd"), "nesterov": ("False", "True"), "strength": ("0.5", "0.9")}
    for name, rows in table.groupby("hyperparameter"):
        assert set(zip(rows["least"], rows["greatest"], strict=True)) == {ends[name]}


def test_a_hyperparameter_that_decides_is_important():
    """Only trials of the full budget count. There is no importance with few trials or one hyperparameter."""
    rng = np.random.default_rng(0)
    rows = [
        {"trial": trial, "hyperparameter": name, "position": position, "budget": 10, "score": units**2}
        for trial, (units, dropout) in enumerate(rng.random((40, 2)))
        for name, position in (("units", units), ("dropout", dropout))
        if name == "units" or trial % 4
    ]
    table = pd.DataFrame(rows)
    misleading = table.assign(trial=table["trial"] + 40, budget=2, score=-table["score"])
    found = tuning.with_importance(pd.concat([table, misleading], ignore_index=True))
    importance = found.groupby("hyperparameter")["importance"].first()
    assert importance["units"] > 0.9
    assert importance.sum() == pytest.approx(1, abs=0.002)
    assert found["r2"].unique()[0] > 0.8
    assert found.equals(tuning.with_importance(pd.concat([table, misleading], ignore_index=True)))
    few, one = table[table["trial"] < 4], table[table["hyperparameter"] == "units"]
    assert tuning.with_importance(few)["importance"].isna().all()
    assert tuning.with_importance(one)["importance"].isna().all()


def test_a_condition_on_two_others_holds_where_both_do():
    both = {"a": [True], "b": [True]}
    space = {"a": {"type": "boolean"}, "b": {"type": "boolean"}, "c": {"type": "boolean", "when": both}}
    trials, _ = run(tune(strategy="grid", space=space))
    assert len(trials) == 5
    for tried in (trial.hyperparameters for trial in trials):
        assert ("c" in tried) == (tried["a"] and tried["b"])


def test_a_grid_is_asked_for_at_once_in_kerastuners_order():
    settings = tune(
        strategy="grid",
        space={"units": {"type": "choice", "values": [16, 48, 32]}, "dropout": {"type": "boolean"}},
    )
    batches = []

    def count(asked):
        batches.append(len(asked))
        yield from formula(asked)

    trials, _ = run(settings, function=count)
    assert batches == [7]  # with the baseline
    objective = keras_tuner.Objective(SCORE, "max")
    own = keras_tuner.oracles.GridSearchOracle(
        objective, hyperparameters=oracles.search_space(settings.space)
    )
    own.save = own._save_trial = lambda *_: None
    own.verbose = 0
    values = []
    while (asked := own.create_trial("worker")).status == "RUNNING":
        values.append(asked.hyperparameters.values)
        own.update_trial(asked.trial_id, {SCORE: 0.0})
        asked.status = "COMPLETED"
        own.end_trial(asked)
    assert [
        {name: trial.hyperparameters[name] for name in ("units", "dropout")} for trial in trials
    ] == values


def test_a_failed_trial_is_recorded_and_never_the_best():
    def fails(asked):
        for training, checkpoint, _ in formula(asked):
            units = training.hyperparameters["units"]
            if units in (192, 208):
                yield training, "ValueError: no", {}
            elif units == 224:
                bad = {name: [*values[:-1], float("nan")] for name, values in checkpoint.history.items()}
                yield training, Checkpoint(checkpoint.epoch, [], [], bad, [], 1, stopped=True), {}
            else:
                yield training, checkpoint, {}

    trials, _ = run(tune(strategy="grid"), function=fails)
    assert len(trials) == 32
    failures = {
        trial.hyperparameters["units"]: trial.evaluation.failure
        for trial in trials
        if trial.evaluation.failure
    }
    assert failures == {192: "ValueError: no", 208: "ValueError: no", 224: f"{NAME} is nan after epoch 10"}
    assert best(trials, SCORE).hyperparameters["units"] in (176, 240)


@pytest.mark.parametrize("objective", [SCORE, LOSS])
def test_failed_trials_take_no_promotions_from_hyperband(objective):
    """With failed trials, KerasTuner itself would run only 22 of 30 trials and promote none."""

    def fails(asked):
        for training, checkpoint, _ in formula(asked):
            failed = training.hyperparameters["units"] > 300
            yield training, "ValueError: no" if failed else checkpoint, {}

    trials, _ = run(tune(objective=objective), function=fails)
    assert len(trials) == 30
    failed = [trial for trial in trials if trial.evaluation.failure]
    assert {trial.hyperparameters["units"] > 300 for trial in failed} == {True}
    promoted = [trial for trial in trials[22:] if not trial.evaluation.failure]
    assert len(promoted) == 8
    top = best(trials, objective)
    assert top.budget == 10
    assert abs(top.hyperparameters["units"] - 200) < 64


def test_a_choice_that_scores_far_worse_than_a_trial_of_a_smaller_budget_gives_a_warning():
    for low, warned in ((0.13, True), (0.95, False)):
        trials = [trial(1, 2, 0.97, 10), trial(2, 10, low, 30)]
        warning = tuning.doubt(tuning.choose(trials, tune()), tune())
        assert bool(warning) is warned
    assert tuning.doubt(tuning.choose(trials[1:], tune()), tune()) is None
    for epochs, after in ((2, "2 epochs"), (1, "1 epoch")):
        trials = [trial(1, epochs, 0.97, 10), trial(2, 10, 0.13, 30)]
        assert tuning.doubt(tuning.choose(trials, tune()), tune()).startswith(
            f"warning: trial 1, after {after}, has {SCORE} 0.970, far better than the chosen trial"
        )


def test_the_tolerance_excuses_no_difference_in_loss():
    """The tolerance is in units of the score."""
    trials = [trial(1, 2, 0.97, 10), trial(2, 10, 0.8, 30)]
    of_loss, of_score = tune(objective=LOSS, tolerance=0.5), tune(tolerance=0.5)
    assert "raise tune.max_epochs" in tuning.doubt(tuning.choose(trials, of_loss), of_loss)
    full = [trial(1, 10, 0.97, 30), trial(2, 10, 0.8, 10)]  # the second is chosen, as it is smaller
    assert "take another tune.selection" in tuning.doubt(tuning.choose(full, of_loss), of_loss)
    of_best = tune(objective=LOSS, selection="best")
    assert tuning.doubt(tuning.choose(full, of_best), of_best) is None
    assert not tuning.doubt(tuning.choose(trials, of_score), of_score)


@pytest.mark.parametrize(
    ("error", "shown"), [(0.0012, "0.9705"), (0.03, "0.971"), (0.0, "0.9705"), (None, "0.9705")]
)
def test_a_score_is_shown_to_two_digits_of_its_standard_error(error, shown):
    assert tuning.shown_score(trial(1, 2, 0.9705, 10, error), tune(tolerance=1)) == shown


def test_all_trials_failed():
    trials, _ = run(tune(), function=lambda asked: ((training, "ValueError: no", {}) for training in asked))
    assert all(trial.evaluation.failure for trial in trials)
    assert best(trials, SCORE) is None


def checkpoint(*accuracies):
    """A checkpoint with these validation accuracies of 100 examples; epochs took 1, 2, 3, ... seconds."""
    errors = [np.sqrt(accuracy * (1 - accuracy) / 100) for accuracy in accuracies]
    values = accuracies, errors, accuracies, [0.03] * len(accuracies)
    history = {"loss": [0.0] * len(accuracies), **dict(zip(EVALUATED, values, strict=True))}
    return Checkpoint(len(accuracies), [], [], history, list(range(1, len(accuracies) + 1)), 7)


def test_the_standard_error_is_due_to_examples_and_to_executions():
    assert evaluate(holdout(), [checkpoint(0.5, 0.9)], epochs=2).standard_error == pytest.approx(
        np.sqrt(0.9 * 0.1 / 100)
    )
    assert evaluate(holdout(LOSS), [checkpoint(0.9, 0.5)], epochs=2).standard_error == pytest.approx(0.3 / 10)
    two = evaluate(holdout(seeds=[0, 1]), [checkpoint(0.8), checkpoint(0.9)], epochs=1)
    assert two.standard_error == pytest.approx(np.sqrt((0.16 + 0.09) / 2 / 100 + 0.05**2))
    data = Split(np.zeros((18, 1)), np.repeat([0, 1], 9))
    assert evaluate(
        CrossValidation(folds(data, 3, seed=0), [0]),
        [checkpoint(0.8), checkpoint(0.9), checkpoint(0.7)],
        epochs=1,
    ).standard_error == pytest.approx(0.1 * np.sqrt(1 / 3 + 1 / 2))


def trial(number, budget, score, parameters, error=0.01, failure=None):
    scores = {SCORE: score, LOSS: 1 - score}
    return Trial(
        number,
        {"units": number},
        budget,
        Evaluation(scores, error, budget, parameters=parameters, failure=failure),
    )


@pytest.mark.parametrize("objective", [SCORE, LOSS])
def test_the_smallest_within_one_standard_error(objective):
    trials = [
        trial(1, 10, 0.971, 10),
        trial(2, 10, 0.975, 30),
        trial(3, 10, 0.98, 50),
        trial(4, 10, 0.969, 5),  # too bad
        trial(5, 2, 0.99, 1),  # another budget
        trial(6, 10, 0.99, 1, failure="ValueError: no"),
        trial(7, 10, 0.976, 10),
    ]
    trials.append(replace(trials[2], number=8))  # the same hyperparameters count once
    assert [t.number for t in as_good(trials, objective)] == [7, 1, 2, 3]
    assert best(trials, objective).number == 5
    assert as_good(trials[5:6], objective) == []
    for tolerance, numbers in (
        (0.009, [7, 1, 2, 3]),
        (0.004, [7, 3]),
        (0.0039, [3]),
        (0.02, [4, 7, 1, 2, 3]),
    ):
        assert [t.number for t in as_good(trials, objective, tolerance)] == numbers
    assert as_good(trials[5:6], objective, 1) == []


def test_a_score_is_the_mean_of_each_executions_best_epoch():
    evaluation = evaluate(
        holdout(seeds=[0, 1]), [checkpoint(0.2, 0.6, 0.5), checkpoint(0.1, 0.2, 0.4, 0.9)], epochs=3
    )
    assert evaluation.scores[SCORE] == np.mean([0.6, 0.4])
    assert (evaluation.epochs, evaluation.parameters, evaluation.best_epoch) == (3, 7, 3)
    assert evaluation.seconds_per_epoch == 2
    assert [training.seed for training in trainings(holdout(seeds=[0, 1]), {})] == [0, 1]


def test_the_oracles_are_kerastuners_own_and_write_nothing(tmp_path, monkeypatch, capsys):
    settings = tune(strategy="random")
    monkeypatch.chdir(tmp_path)
    trials, oracle = run(settings)
    assert isinstance(oracle, keras_tuner.Oracle)
    assert len(trials) == 20
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_no_hyperparameter_can_be_named_as_a_column_of_the_trials():
    columns = tuning.row(Trial(0, {}, 1, Evaluation()), SCORE).keys()
    assert columns == {*params.TRIAL_COLUMNS, SCORE, LOSS}


@pytest.mark.parametrize(
    ("best", "noted"), [((512, 2), "units 512"), ((496, 1), "units 496, layers 1"), ((480, 2), None)]
)
def test_a_best_trial_at_an_end_of_the_space_is_noted(best, noted):
    space = {**TUNE["space"], "layers": {"type": "int", "min": 1, "max": 3}}
    settings = tune(space=space)
    top = Trial(1, dict(zip(space, best, strict=True)), 1, Evaluation())
    note = tuning.edge(top, settings)
    assert (note and note[note.index("(") + 1 : note.index(")")]) == noted


def test_a_baseline_outside_the_space_that_is_best_is_noted():
    """Its value, 0, has no position on a log scale."""
    space = {"l2": {"type": "float", "min": 1e-5, "max": 1e-2, "sampling": "log"}}
    note = tuning.edge(Trial(0, {"l2": 0.0}, 1, Evaluation()), tune(space=space))
    assert "(l2 0)" in note


def test_conditions_of_a_parent_and_of_its_parent_both_hold():
    """Otherwise KerasTuner would vary a hyperparameter that the network never reads."""
    integers = {"type": "int", "min": 1, "max": 3}
    space = {
        "layers": integers,
        "width": {**integers, "when": {"layers": [2, 3]}},
        "skip": {"type": "boolean", "when": {"layers": [3], "width": [1]}},
    }
    dimensions = tune(space=space).space
    asked = oracles.search_space(dimensions)
    for layers, width in ((2, 1), (3, 1), (3, 2)):
        asked.values = {"layers": layers, "width": width}
        active = dimensions["skip"].active(asked.values)
        assert asked.is_active("skip") == active == ((layers, width) == (3, 1))


def test_a_condition_that_can_never_hold_is_refused_in_one_line():
    integers = {"type": "int", "min": 1, "max": 3}
    space = {
        "layers": integers,
        "width": {**integers, "when": {"layers": [1]}},
        "skip": {"type": "boolean", "when": {"layers": [2], "width": [1]}},
    }
    line = "^params.yaml: tune.space.skip is never active: .+ no value of layers in common$"
    with pytest.raises(UserError, match=line):
        oracles.search_space(tune(space=space).space)
