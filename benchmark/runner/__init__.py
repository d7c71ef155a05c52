"""One evaluation run: plan, shards, probe fits, record."""
