"""A note that a model was trained on worlds of another suite than the one it is measured on, printed before a command computes.

`--suite` has a default. Prompts of other worlds, or with another number of examples, are unfamiliar to the model, and every figure
is then of such prompts.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from benchmark.errors import ModelError
from benchmark.models.json_files import TRAINING_FILE, read_json
from benchmark.tasks.suite import Suite, load_suite, suite_names

if TYPE_CHECKING:
    from benchmark.models.checkpoint import Checkpoint


def read_trained_suite(checkpoint: Checkpoint) -> Suite | None:
    """The shipped suite that `training.json` of `baselines.train` names; None without one, or if the file cannot be read."""
    path = checkpoint.folder / TRAINING_FILE
    if checkpoint.is_custom or checkpoint.is_in_memory or not path.is_file():
        return None
    try:
        name = read_json(path)["recipe"]["suite"]
    except (ModelError, OSError, KeyError, TypeError):
        return None
    return load_suite(name) if name in suite_names() else None


def note_trained_suite(checkpoint: Checkpoint, suite: Suite) -> None:
    """Print a note to standard error if the model was trained on prompts of another kind than those of `suite`.

    Suites that differ in their programs alone, such as `icml24` and `colm24`, have prompts of one kind.
    """
    trained = read_trained_suite(checkpoint)
    if trained is not None and _kind_of_prompts(trained) != _kind_of_prompts(suite):
        print(
            f"note: {checkpoint.name} was trained on the suite {trained.name} ({TRAINING_FILE}) and is measured on "
            f"{suite.name}, whose prompts differ; --suite {trained.name} measures it on its own",
            file=sys.stderr,
        )


def _kind_of_prompts(suite: Suite) -> tuple[object, ...]:
    return suite.recipe.height, suite.recipe.width, suite.shown, suite.equality
