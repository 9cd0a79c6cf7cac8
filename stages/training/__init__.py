"""One training, as a pure function. A stored training's key depends on all files here and their imports."""
