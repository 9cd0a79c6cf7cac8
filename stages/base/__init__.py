"""What stages stand on: typed params, one-line errors, files that appear whole or never, arrays on disk."""
