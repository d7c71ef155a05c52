"""Workers: the pool that hands out work, the executor of one process, and the executor on Ray."""
