"""The basis of all stages: typed params, one-line errors, files written atomically, arrays on disk."""
