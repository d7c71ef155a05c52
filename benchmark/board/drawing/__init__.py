"""Charts of the page as geometry."""
