"""What protocol 4 leaves open: displacement with its records, and programs with control flow. Reported, deciding nothing."""
