"""The search: KerasTuner's oracles (oracles.py) ask for trials, evaluation.py scores them, search.py brings both together."""
