"""Baseline and tuned network compared: how much smaller and faster, and whether as accurate, with what certainty."""
