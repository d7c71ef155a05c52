"""The derivability screen: what must be found derivable is, and the stored table is what is computed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import random_programs

from karel_env.execution.compiler import compile_programs
from karel_env.execution.interpreter import run
from karel_env.features import FEATURES
from karel_env.language import ACTIONS, CONDITIONS, Programs
from karel_env.screen import DOCUMENT, SAMPLE, TABLE, THRESHOLD, derivability, table, valid_alternatives
from karel_env.semantics import (
    FLIP,
    LEFT,
    MOVE,
    ORIGINAL,
    PICK,
    PUT,
    RIGHT,
    Semantics,
    condition_flips,
    mirror_classes,
)
from karel_env.syntax.parser import parse
from karel_env.world import parse_world

ALTERNATIVES = {s.name: s for s in mirror_classes()}
MOVES_EXCHANGED = ("plrmu", "plrum")
FACING = FEATURES.index("facing")


def mirrored(semantics: Semantics) -> Semantics:
    """Left and right exchanged: the other member of its class."""
    turned = {LEFT: RIGHT, RIGHT: LEFT}
    return Semantics(semantics.name + "'", tuple(turned.get(e, e) for e in semantics.actions))


@pytest.fixture(scope="module")
def small():
    """Skills on a tenth of the stored sample: flip, two alternatives, the mirror of one, the original."""
    chosen = [FLIP, ALTERNATIVES["plrmu"], ALTERNATIVES["plumr"], mirrored(ALTERNATIVES["plumr"]), ORIGINAL]
    return derivability(chosen, sample=SAMPLE // 10)


def test_what_follows_from_the_state_is_found(small):
    flip, exchanged, other, _, original = small
    assert flip[FACING] > 0.99
    assert exchanged[FACING] > 0.99
    assert other[FACING] < THRESHOLD
    assert original[FACING] > 0.99
    assert (original[[FEATURES.index("start_x"), FEATURES.index("absolute_y")]] > 0.7).all()


def test_mirror_images_are_equally_derivable(small):
    """Facing and positions only: walls break the symmetry for what is to the east and the west."""
    same = [FEATURES.index(name) for name in ("facing", "start_x", "start_y", "absolute_x", "absolute_y", "obstacle")]
    np.testing.assert_allclose(small[2][same], small[3][same], atol=0.02)


def test_exchanging_move_with_a_marker_action_leaves_facing(small):
    rng = np.random.default_rng(8)
    worlds = random_programs.worlds(rng, 500, 6, 6)
    programs = compile_programs(Programs.straight_line(rng.integers(0, 5, (500, 8)), np.full(500, 8)))
    truth = run(programs, worlds, trace=True)
    for name in MOVES_EXCHANGED:
        other = run(programs, worlds, ALTERNATIVES[name], trace=True)
        np.testing.assert_array_equal(other.trace.heading, truth.trace.heading)
        assert (other.trace.position != truth.trace.position).any()
        assert name not in valid_alternatives("facing")


def test_there_are_29_classes_and_the_mirrors_are_other_members():
    assert len(ALTERNATIVES) == 29
    actions = {s.actions for s in ALTERNATIVES.values()} | {ORIGINAL.actions}

    def movement(effects: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(PICK if e == PUT else e for e in effects)

    classes = {movement(a) for a in actions} | {movement(mirrored(Semantics("x", a)).actions) for a in actions}
    assert len(classes) == 60
    assert all(s.actions.index(LEFT) < s.actions.index(RIGHT) for s in ALTERNATIVES.values())
    assert all(s.actions[w] == MOVE for s in ALTERNATIVES.values() for w in [s.name.index("m")])


def test_the_stored_table_is_the_computed_one():
    names = ["lmpru", "plrmu", "pulrm"]
    found = derivability([ALTERNATIVES[name] for name in names])
    stored = np.array([[table()[name][feature] for feature in FEATURES] for name in names])
    np.testing.assert_allclose(found, stored, atol=2e-4)


def test_kept_are_those_under_the_threshold():
    entry = json.loads(TABLE.read_text())
    assert entry["threshold"] == THRESHOLD == 0.2
    assert set(entry["noise"]) == set(FEATURES)
    assert max(entry["noise"].values()) < 0.01
    assert tuple(table()) == tuple(sorted(ALTERNATIVES))
    for feature in FEATURES:
        assert valid_alternatives(feature) == tuple(n for n in sorted(ALTERNATIVES) if table()[n][feature] < 0.2)
    assert len(valid_alternatives("facing")) == 18
    with pytest.raises(KeyError, match=r"colour.*facing, start_x"):
        valid_alternatives("colour")


def test_the_document_shows_the_table():
    rows = {line.split("`")[1]: line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")}
    assert set(rows) == {*ALTERNATIVES, "flip"}
    for name, skills in table().items():
        cells = [cell.strip() for cell in rows[name].split("|")[2 : 2 + len(ACTIONS) + len(FEATURES)]]
        shown = dict(zip(FEATURES, cells[len(ACTIONS) :], strict=True))
        for feature, skill in skills.items():
            assert shown[feature].strip("*") in {f"{skill:.2f}", f"{skill + 5e-5:.2f}", f"{skill - 5e-5:.2f}"}
            assert shown[feature].startswith("**") == (skill >= THRESHOLD)


def test_condition_flips_invert_what_they_name():
    flips = condition_flips()
    assert [s.name for s in flips] == [*(f"not-{c}" for c in CONDITIONS), "not-all"]
    world = parse_world("> . #\n. . .")
    programs = [parse(f"def run() {{ if ({c}()) {{ turn_left(); }} }}") for c in CONDITIONS]
    worlds = world[None][np.zeros(len(programs), int)]

    def values(semantics: Semantics) -> np.ndarray:
        done = run(Programs.of(programs), worlds, semantics, trace=True)
        return done.trace.value[done.trace.offsets[:-1]].astype(bool)

    truth = values(ORIGINAL)
    assert truth.tolist() == [True, False, True, False, True]
    for j, flip in enumerate(flips[:-1]):
        np.testing.assert_array_equal(values(flip) != truth, np.arange(len(CONDITIONS)) == j)
    assert (values(flips[-1]) != truth).all()
