"""The comparison of the baseline and the tuned network: score, with its uncertainty, size and speed."""
