"""Does a model use the state of the robot: exact targets, pairs, edits, controls, verdict, merges."""
