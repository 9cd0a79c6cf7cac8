"""The private names of other packages that this project uses: an upgrade that changes one fails here first.

docs/architecture.md ("Private names of others") explains why each is needed.
"""

import inspect
import random

import keras_tuner
from distributed.worker_memory import WorkerMemoryManager
from keras.src.random import seed_generator

from stages.training.backend import keras

FIX = "see docs/architecture.md, Private names of others, and fix"


def test_keras_takes_seeds_from_pythons_generator(monkeypatch):
    monkeypatch.setattr(seed_generator, "python_random", random.Random(7))  # noqa: S311
    first = keras.random.SeedGenerator().state.numpy().tolist()
    monkeypatch.setattr(seed_generator, "python_random", random.Random(7))  # noqa: S311
    assert keras.random.SeedGenerator().state.numpy().tolist() == first, f"{FIX} stages/training/network.py"


def test_keras_sums_gradients_over_replicas_in_a_method_of_its_own():
    optimizer = keras.optimizers.SGD()
    pairs = [(None, None)]
    source = inspect.getsource(type(optimizer)._backend_update_step)
    assert "self._all_reduce_sum_gradients(grads_and_vars)" in source, f"{FIX} stages/training/network.py"
    optimizer._all_reduce_sum_gradients = lambda gradients_and_variables: gradients_and_variables
    assert optimizer._all_reduce_sum_gradients(pairs) is pairs


def test_kerastuner_saves_trials_in_a_method_of_its_own():
    source = inspect.getsource(keras_tuner.Oracle)
    assert "self._save_trial(" in source, f"{FIX} stages/search/oracles.py"


def test_kerastuners_grid_waits_for_trials_in_a_list():
    oracle = keras_tuner.oracles.GridSearchOracle("val_loss")
    assert oracle._populate_next == [], f"{FIX} stages/search/oracles.py"


def test_dask_pauses_a_worker_by_its_memory_manager():
    source = inspect.getsource(WorkerMemoryManager)
    assert "self.memory_pause_fraction" in source, f"{FIX} stages/compute/plugin.py"


def test_keras_names_the_slots_of_adam_by_momentum_and_velocity():
    network = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, name="a_momentum")])
    optimizer = keras.optimizers.Adam(use_ema=True)
    optimizer.build(network.trainable_variables)
    names = [variable.name.rpartition("_")[2] for variable in optimizer.variables]
    found = names.count("momentum"), names.count("velocity")
    assert found == (2, 2), f"{FIX} stages/training/adam.py"
