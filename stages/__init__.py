"""The pipeline: prepare, baseline, tune, retrain, and a folder for each concept; see docs/architecture.md."""
