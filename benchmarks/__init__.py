"""Benchmarks of speed, memory and statistics, and the experiments that the documents quote."""
