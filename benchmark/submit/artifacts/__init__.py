"""Files of a submission that are kept outside of the repository: listed by SHA-256 and size, fetched, checked, cached."""
