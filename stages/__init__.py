"""The pipeline: four scripts (prepare, baseline, tune, retrain) and one folder for each concept; see docs/architecture.md."""
