"""Data sets: a catalog of them, the sources of their files, and readers for their formats."""
