"""Baseline and tuned network compared: how much smaller and faster, whether as accurate, how certainly."""
