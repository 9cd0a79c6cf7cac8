"""Search: oracles.py proposes trials, scoring.py scores them, search.py is the loop, tuning.py chooses."""
