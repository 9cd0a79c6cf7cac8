"""Data sets: which there are, where their files come from, and their format."""
