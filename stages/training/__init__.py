"""One training as a pure function. This folder and what model.py imports are in a stored training's key."""
