"""Options and progress display that the commands share."""
