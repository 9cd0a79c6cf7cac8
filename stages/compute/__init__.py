"""Trainings, many at once, each only once: a Dask cluster, what its workers need, the store of trainings."""
