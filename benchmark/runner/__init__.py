"""A run of one model on one suite: plan, worker, stages, store, folder, record."""
