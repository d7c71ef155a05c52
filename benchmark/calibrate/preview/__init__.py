"""Known answers of a preview, which may stop after a few probe seeds."""
