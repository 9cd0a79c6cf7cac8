"""Trainings run in parallel on Dask workers, and the store that makes sure none is run twice."""
