"""Workers: the pool that schedules work items, the in-process executor, and the executor on Ray."""
