"""Play a program step by step and print the world after each action.

python examples/play_program.py --steps 5
"""

import argparse

import karel_env as karel

PROGRAM = "def run() { while (front_is_clear()) { move(); if (markers_present()) { pick_marker(); }; }; turn_left(); }"
WORLD = """
. . . #
> 1 . 2
. # . .
"""

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--program", default=PROGRAM)
parser.add_argument("--steps", type=int, help="number of actions to print (default: all)")
options = parser.parse_args()

played = karel.run(options.program, WORLD, trace=True)
for number, step in enumerate(played.steps[: options.steps], 1):
    print(f"{number}. {step.word} row {step.row}, column {step.column}, facing {step.heading}\n{step}\n")
print(f"{played.status} after {played.actions} actions")
