"""Equality of worlds against a comparison of whole worlds, one by one, and of their drawings."""

from __future__ import annotations

import numpy as np

from karel_env.world import MAX_PRINTED_MARKERS, Worlds, world_texts


def similar_worlds() -> tuple[Worlds, Worlds]:
    """Worlds [40, 3] that differ in nothing, in the robot, in markers under it, or elsewhere."""
    random = np.random.default_rng(0)
    cells = np.full((40, 3, 5, 6), -1, np.int16)
    cells[..., 1:-1, 1:-1] = random.integers(0, 3, (40, 3, 3, 4))
    robot = np.stack(
        [random.integers(1, 4, (40, 3)), random.integers(1, 5, (40, 3)), random.integers(0, 4, (40, 3))], -1
    )
    other_cells, other_robot = cells.copy(), robot.copy()
    for i in range(40):
        for j in range(3):
            row, column, heading = robot[i, j]
            if i % 4 == 1:
                other_robot[i, j, 2] = (heading + 1 + j) % 4
            elif i % 4 == 2:
                other_cells[i, j, row, column] += 1
            elif i % 4 == 3:
                other_cells[i, j, 1 if row == 2 else 2, column] += 1
    return Worlds.of(cells, robot), Worlds.of(other_cells, other_robot)


def test_worlds_are_compared_as_wholes():
    worlds, others = similar_worlds()
    same_state, same_drawing = worlds.same_state(others), worlds.same_drawing(others)
    expected = [
        [
            np.array_equal(worlds.robot[i, j], others.robot[i, j])
            and np.array_equal(worlds.cells[i, j], others.cells[i, j])
            for j in range(3)
        ]
        for i in range(40)
    ]
    assert same_state.tolist() == expected
    assert worlds.cells.max() < MAX_PRINTED_MARKERS
    texts = [world_texts(w.reshape(-1), show_under_robot=False) for w in (worlds, others)]
    assert same_drawing.ravel().tolist() == [a == b for a, b in zip(*texts, strict=True)]
    assert [bool(part.any()) for part in (same_state, same_drawing & ~same_state, ~same_drawing)] == [True] * 3


def test_any_leading_shape():
    """One world, worlds against one, and worlds that are the same array over and over."""
    worlds, others = similar_worlds()
    for method in (Worlds.same_state, Worlds.same_drawing):
        expected = method(worlds, others)
        assert [bool(method(worlds[i, 0], others[i, 0])) for i in range(40)] == expected[:, 0].tolist()
        assert method(worlds[0, 0], others[0, 0]).shape == ()
        against_one = [method(worlds[i], worlds[0]) for i in range(40)]
        assert np.array_equal(method(worlds, worlds[0]), against_one)
        repeated = Worlds(*(np.broadcast_to(a[:1], a.shape) for a in (worlds.cells, worlds.robot, worlds.size)))
        assert np.array_equal(method(repeated, worlds), against_one)
        assert method(worlds[:0], others[:0]).shape == (0, 3)
