"""Search: KerasTuner's oracles (oracles.py) ask for trials, scoring.py scores them, search.py joins both."""
