"""How far a model keeps the robot's rotation in programs that are longer than those it was trained on."""
