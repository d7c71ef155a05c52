"""From a finished run to the folder of a submission: what is known is filled in, what is not is asked."""
