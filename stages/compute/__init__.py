"""Trainings, many at once and each only once: a Dask cluster, code and data on its workers, the store of what was trained."""
