"""One training as a pure function. This whole folder, and what model.py imports, is part of the key of each stored training."""
