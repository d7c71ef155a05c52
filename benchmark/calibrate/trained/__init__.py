"""Networks that are trained for a known answer to *Uses*, and their tasks."""
