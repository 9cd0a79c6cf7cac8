"""What every stage stands on: typed params, one-line errors, files that appear whole or not at all, arrays on disk."""
