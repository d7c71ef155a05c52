"""Executors of work items: in this process or on Ray, and the pool that drives them."""
