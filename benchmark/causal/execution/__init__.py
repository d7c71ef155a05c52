"""The edit of the causal measurement on the execution task: world, program, then `the robot faces`."""
