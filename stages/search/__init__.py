"""The search: KerasTuner's oracles (oracles.py) ask for trials, evaluation.py scores them, search.py brings both together."""

import stages.backend  # noqa: F401 - before KerasTuner starts TensorFlow its own way
