"""The pipeline: four scripts (prepare, baseline, tune, retrain) and the rooms that they share."""
