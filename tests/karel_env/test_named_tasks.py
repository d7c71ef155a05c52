"""Named tasks: their worlds keep the published rules, known solutions earn 1, and mistakes cost what they should."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import numpy as np
import pytest
import random_programs
from test_control_flow import RECIPE

from karel_env.execution.interpreter import MODES, run
from karel_env.execution.stepping import STEPS, play, snapshots
from karel_env.extras.named_tasks import FOOD, NAMES, named_task, score
from karel_env.extras.named_worlds import BIN, Dice, stairs
from karel_env.generation.control_flow import generate
from karel_env.language import CLOSE, HEADER, Programs
from karel_env.semantics import mirror_classes
from karel_env.syntax.parser import parse

SEEDS = range(20)
MOVE, TURN_LEFT, TURN_RIGHT, PICK_MARKER, PUT_MARKER = range(5)
BACK = "turn_left(); turn_left(); while (front_is_clear()) { move(); };"
SOLUTIONS = {
    "stairClimber": "while (no_markers_present()) { turn_left(); move(); turn_right(); move(); }",
    "fourCorners": "repeat (4) { while (front_is_clear()) { move(); }; put_marker(); turn_left(); }",
    "topOff": "while (front_is_clear()) { if (markers_present()) { put_marker(); }; move(); };"
    " if (markers_present()) { put_marker(); }",
    "maze": "while (no_markers_present()) { ifelse (right_is_clear()) { turn_right(); }"
    " else { while (not front_is_clear()) { turn_left(); } }; move(); }",
    "cleanHouse": "while (no_markers_present()) { if (left_is_clear()) { turn_left(); }; move();"
    " if (markers_present()) { pick_marker(); } }",
    "harvester": f"{BACK} turn_left(); turn_left(); repeat (6) {{ while (front_is_clear()) {{ pick_marker(); move(); }};"
    f" pick_marker(); {BACK} turn_right(); move(); turn_right(); }}",
    "seeder": f"{BACK} turn_left(); while (front_is_clear()) {{ move(); }}; turn_left();"
    " repeat (6) { while (front_is_clear()) { put_marker(); move(); }; put_marker();"
    f" {BACK} turn_right(); move(); turn_right(); }}",
    # Round the board for ever: up the first column, down and up the others, home along the bottom row.
    "snake": "turn_right(); while (front_is_clear()) { move(); }; turn_right(); while (front_is_clear()) { move(); };"
    " while (no_markers_present()) { turn_right(); while (front_is_clear()) { move(); }; turn_right(); move();"
    " repeat (2) { turn_right(); repeat (4) { move(); }; turn_left(); move(); turn_left();"
    " while (front_is_clear()) { move(); }; turn_right(); move(); }; turn_right();"
    " while (front_is_clear()) { move(); }; turn_right(); while (front_is_clear()) { move(); } }",
}


def program(body: str) -> np.ndarray:
    return parse(f"def run() {{ {body} }}")


def straight(actions: list[int]) -> np.ndarray:
    return np.array([*HEADER, *actions, CLOSE], np.int16)


def turns(heading: int, to: int) -> list[int]:
    return [[], [TURN_RIGHT], [TURN_RIGHT, TURN_RIGHT], [TURN_LEFT]][(to - heading) % 4]


def follow(path: list[tuple[int, int]], heading: int) -> tuple[list[int], int]:
    """Actions along neighbouring cells, and the heading at the end."""
    actions = []
    for (row, column), (next_row, next_column) in pairwise(path):
        to = STEPS.index((next_row - row, next_column - column))
        actions += [*turns(heading, to), MOVE]
        heading = to
    return actions, heading


def shortest(cells: np.ndarray, start: tuple[int, int], goal: tuple[int, int]) -> list[tuple[int, int]]:
    came = {start: start}
    queue = deque([start])
    while goal not in came:
        here = queue.popleft()
        for down, right in STEPS:
            cell = (here[0] + down, here[1] + right)
            if cells[cell] >= 0 and cell not in came:
                came[cell] = here
                queue.append(cell)
    path = [goal]
    while path[-1] != start:
        path.append(came[path[-1]])
    return path[::-1]


def ring() -> list[tuple[int, int]]:
    """A closed way over all cells of 8x8: up the first column, then row by row and home along the bottom."""
    way = [(row, 1) for row in range(6, 0, -1)]
    for row in range(1, 7):
        columns = range(2, 7) if row % 2 else range(6, 1, -1)
        way += [(row, column) for column in columns]
    return way


@pytest.mark.parametrize("name", SOLUTIONS)
def test_known_solutions_earn_everything(name):
    assert score(program(SOLUTIONS[name]), name, SEEDS).tolist() == [1.0] * len(SEEDS)


def test_the_key_opens_the_door():
    for seed in SEEDS:
        task = named_task("doorKey", seed)
        cells = task.world.cells.copy()
        key, goal = sorted(((r, c) for r, c in np.argwhere(cells > 0).tolist()), key=lambda cell: cell[1])
        to_key, heading = follow(shortest(cells, tuple(task.world.robot[:2].tolist()), key), int(task.world.robot[2]))
        cells[2:4, 4] = 0
        to_goal, _ = follow(shortest(cells, key, goal), heading)
        assert task.episode(straight([*to_key, PICK_MARKER, *to_goal, PUT_MARKER])).reward == 1.0
        assert task.episode(straight([*to_key, PICK_MARKER])).reward == 0.5
        assert task.episode(straight([*to_key, PICK_MARKER, *to_goal, PICK_MARKER])).reward == -0.5
        assert task.episode(straight([*to_key, PICK_MARKER, PUT_MARKER])).reward == -0.5
        assert task.episode(straight([PUT_MARKER])).reward == -1.0
        assert task.episode(straight([*to_key, *to_goal, PUT_MARKER])).reward in (0.0, -1.0), "the door is shut"


def test_one_stroke_over_all_cells():
    way = ring()
    assert len(set(way)) == 36
    for seed in SEEDS:
        task = named_task("oneStroke", seed)
        at = way.index(tuple(task.world.robot[:2].tolist()))
        actions, _ = follow([*way[at:], *way[:at]], int(task.world.robot[2]))
        episode = task.episode(straight(actions))
        assert episode.reward == 1.0
        assert episode.played.status == "stopped"
        assert (episode.played.world.cells == -1).sum() == 63
        assert task.episode(straight(actions[:-1])).reward == pytest.approx(35 / 36)
        assert task.episode(straight([TURN_LEFT])).reward == pytest.approx(1 / 36)


def test_one_stroke_shuts_the_way_back():
    seed = next(s for s in range(200) if named_task("oneStroke", s).world.robot.tolist()[:2] == [6, 1])
    spiral = "while (front_is_clear()) { while (front_is_clear()) { move(); }; turn_left(); }"
    assert score(program(spiral), "oneStroke", [seed]).tolist() == [1.0]
    there_and_back = "while (front_is_clear()) { move(); }; repeat (19) { move(); }"
    assert score(program(there_and_back), "oneStroke", [seed]).tolist() == [pytest.approx(6 / 36)]


def test_the_snake_grows_and_must_not_bite_itself():
    task = named_task("snake", 1)
    lengths = []
    episode = task.episode(program(SOLUTIONS["snake"]), lambda state: lengths.append(int((state.cells > 0).sum())))
    assert episode.played.status == "stopped"
    assert lengths[-2] == 1 + 20, "food, and the body behind the head: one less than its length of 21"
    assert lengths[-1] == 20, "the last food is eaten"
    square = program("repeat (19) { repeat (4) { move(); turn_right(); } }")
    rewards = score(square, "snake", range(60))
    assert set(np.round(rewards * FOOD).tolist()) >= {0.0}
    assert rewards.max() < 0.3


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        ("stairClimber", "turn_left(); turn_left(); move(); turn_left(); move(); move()", (-1.0, 0.0, 1.0)),
        ("stairClimber", "turn_left(); move(); move()", (-1.0,)),
        ("fourCorners", "put_marker()", (-1.0,)),
        ("fourCorners", "while (front_is_clear()) { move(); }; put_marker(); put_marker()", (-0.75,)),
        ("fourCorners", "while (front_is_clear()) { move(); }; put_marker()", (0.25,)),
        ("topOff", "put_marker()", (-1.0,)),
        ("topOff", "while (no_markers_present()) { move(); }; pick_marker()", (-1.0,)),
        ("maze", "turn_left()", (0.0,)),
        ("cleanHouse", "put_marker()", (-1.0,)),
        ("cleanHouse", "move(); turn_right(); move(); pick_marker()", (1 / 11,)),
        ("harvester", "pick_marker()", (1 / 36,)),
        ("harvester", "pick_marker(); put_marker()", (1 / 36 - 1,)),
        ("seeder", "put_marker(); put_marker()", (1 / 36 - 1,)),
        ("seeder", "put_marker(); pick_marker()", (1 / 36 - 1,)),
        ("oneStroke", "put_marker()", (1 / 36,)),
        ("snake", "turn_left()", (0.0,)),
    ],
)
def test_other_programs_earn_less(name, body, expected):
    rewards = score(program(body), name, range(8))
    assert {round(r, 6) for r in rewards.tolist()} <= {round(e, 6) for e in expected}


def test_the_mode_matters_on_clean_house():
    """The same program earns almost nothing or everything."""
    words = program(SOLUTIONS["cleanHouse"])
    rewards = {mode: score(words, "cleanHouse", range(8), mode) for mode in MODES}
    assert (rewards["turn180"] == 1).all()
    np.testing.assert_array_equal(rewards["noop"], rewards["crash"])
    assert 0.05 < rewards["noop"].mean() < 0.2
    assert pytest.approx(rewards["noop"][6]) == 1 / 11


def test_a_program_that_does_not_end_is_stopped():
    episode = named_task("seeder", 0).episode(program("while (front_is_clear()) { turn_left(); move(); }"))
    assert episode.played.status == "timeout"
    assert episode.played.events == 10_000


@pytest.mark.parametrize("name", NAMES)
def test_worlds_come_from_the_seed_and_keep_the_rules(name):
    sizes = {"cleanHouse": (14, 22), "stairClimber": (12, 12), "fourCorners": (12, 12), "topOff": (12, 12)}
    markers = {"fourCorners": {0}, "oneStroke": {0}, "seeder": {0}, "harvester": {36}, "cleanHouse": {11},
               "doorKey": {2}, "topOff": set(range(1, 9))}  # fmt: skip
    drawn = [named_task(name, seed).world for seed in range(60)]
    for seed, world in enumerate(drawn):
        world.check()
        assert world.cells.shape == sizes.get(name, (8, 8))
        assert int(world.cells[world.cells > 0].sum()) in markers.get(name, {1})
        again = named_task(name, seed).world
        assert again.same_state(world)
    assert len({(w.cells.tobytes(), w.robot.tobytes()) for w in drawn}) >= (4 if name in ("harvester",) else 8)


def test_details_of_worlds():
    for seed in SEEDS:
        climber = named_task("stairClimber", seed).world
        steps = stairs(12, 12)
        goal = tuple(np.argwhere(climber.cells > 0)[0].tolist())
        assert steps.index(tuple(climber.robot[:2].tolist())) < steps.index(goal)
        house = named_task("cleanHouse", seed).world
        assert house.cells[BIN] == 1
        assert house.robot.tolist() == [1, 13, 2]
        maze = named_task("maze", seed).world
        assert (maze.cells >= 0).sum() == 17, "nine cells and the eight passages of a tree"
    seen = np.stack([named_task("maze", seed).world.cells for seed in range(200)])
    assert (seen >= 0).any(0).sum() == 9 + 12


def test_dice_are_fair_and_repeat():
    dice = Dice(3, 0)
    drawn = [dice.below(6) for _ in range(6000)]
    again = Dice(3, 0)
    assert drawn[:100] == [again.below(6) for _ in range(100)]
    assert np.abs(np.bincount(drawn) - 1000).max() < 150
    orders = {tuple(Dice(seed, 1).shuffled("abc")) for seed in range(100)}
    assert len(orders) == 6


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match=r"'climb'.*stairClimber, fourCorners"):
        named_task("climb", 0)


def test_the_slow_machine_is_the_fast_one():
    """Every kind of statement, all modes, caps and budgets, some semantics: status, counts and final world."""
    tasks = generate(RECIPE, 9, "audit", np.arange(120))
    rng = np.random.default_rng(2)
    worlds = random_programs.worlds(rng, 120, 7, 8)
    for case, semantics in enumerate([*mirror_classes()[::10], mirror_classes()[3]]):
        mode = MODES[case % 3]
        cap, budget = (None, 1000) if case % 2 else (2, 40)
        fast = run(tasks.programs, worlds, semantics, mode=mode, max_markers=cap, max_events=budget)
        for i in range(case, 120, 3):
            slow = play(
                tasks.programs.program(i), worlds[i], lambda state: False, semantics,
                mode=mode, max_markers=cap, max_events=budget,
            )  # fmt: skip
            assert slow.status == ("ok", "crash", "timeout")[fast.status[i]]
            assert (slow.actions, slow.events) == (fast.actions[i], fast.events[i])
            assert slow.world.same_state(fast.worlds[i])


def test_snapshots_follow_the_trace():
    tasks_words = program(SOLUTIONS["seeder"])
    world = named_task("seeder", 0).world
    seen = snapshots(tasks_words, world)
    done = run(Programs.of([tasks_words]), world[None], trace=True)
    acted = done.trace.value < 0
    width = world.cells.shape[1]
    assert len(seen) == 1 + acted.sum()
    np.testing.assert_array_equal(seen.robot[1:, 0] * width + seen.robot[1:, 1], done.trace.position[acted])
    np.testing.assert_array_equal(seen.robot[1:, 2], done.trace.heading[acted])
    assert seen[0].same_state(world)
    assert seen[-1].same_state(done.worlds[0])
    with pytest.raises(ValueError, match="expected one world"):
        play(tasks_words, world[None], lambda state: False)
    with pytest.raises(ValueError, match="mode 'fly'"):
        play(tasks_words, world, lambda state: False, mode="fly")
