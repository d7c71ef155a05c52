"""Laws that hold for every program: hypothesis looks for one that breaks them."""

from __future__ import annotations

import random

import numpy as np
import random_programs
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference_interpreter import text

from karel_env.execution.interpreter import MODES, OK, TIMEOUT, Execution, run
from karel_env.extras.token_syntax import parse_tokens, token_text
from karel_env.language import ACTIONS, CLOSE, HEADER, WORDS, Programs, text_of
from karel_env.semantics import LEFT, MOVE, RIGHT, Semantics
from karel_env.syntax.parser import ParseError, parse

seeds = st.integers(0, 2**32 - 1)
modes = st.sampled_from(MODES)


def some(seed: int, depth: int = 3) -> np.ndarray:
    """int16 [T], the words of a random program."""
    return parse(text(random_programs.statements(random.Random(seed), depth)))


def some_worlds(seed: int, programs: int = 1, worlds: int = 5):
    rng = np.random.default_rng(seed)
    high, wide = rng.integers(3, 11, 2)
    return random_programs.worlds(rng, programs * worlds, high, wide).reshape(programs, worlds)


def body(words: np.ndarray) -> list[int]:
    return words[len(HEADER) : -1].tolist()


def program(*parts: list[int]) -> Programs:
    return Programs.of([[*HEADER, *(word for part in parts for word in part), CLOSE]])


def assert_same(a: Execution, b: Execution, kept: np.ndarray | bool = True) -> None:
    kept = np.broadcast_to(kept, a.status.shape)
    assert a.worlds.same_state(b.worlds)[kept].all()
    assert np.array_equal(a.status[kept], b.status[kept])


@given(seeds, modes, st.data())
def test_four_left_turns_are_nothing(seed, mode, data):
    words = some(seed)
    ends = [i for i, w in enumerate(words) if i >= len(HEADER) and w < len(ACTIONS)] or [len(words) - 1]
    at = data.draw(st.sampled_from(ends))
    turned = [*words[:at], LEFT, LEFT, LEFT, LEFT, *words[at:]]
    worlds = some_worlds(seed)
    plain = run(Programs.of([words]), worlds, mode=mode, max_events=200)
    more = run(Programs.of([turned]), worlds, mode=mode, max_events=1000)
    assert_same(plain, more, plain.status != TIMEOUT)


@given(seeds, seeds, modes)
def test_a_concatenation_runs_its_parts_in_turn(first, second, mode):
    a, b = some(first), some(second)
    worlds = some_worlds(first)
    halfway = run(Programs.of([a]), worlds, mode=mode, max_events=400)
    assume((halfway.status == OK).any())
    apart = run(Programs.of([b]), halfway.worlds, mode=mode, max_events=400)
    whole = run(program(body(a), body(b)), worlds, mode=mode, max_events=800)
    kept = (halfway.status == OK) & (apart.status != TIMEOUT)
    assert_same(apart, whole, kept)
    assert np.array_equal((halfway.events + apart.events)[kept], whole.events[kept])


@given(seeds, modes, st.permutations(range(len(ACTIONS))), st.permutations(range(len(ACTIONS))))
def test_relabelled_actions_mean_the_same_under_the_relabelled_semantics(seed, mode, relabel, meaning):
    words = some(seed)
    renamed = [relabel[w] if w < len(ACTIONS) else w for w in words.tolist()]
    inverse = np.argsort(relabel)
    worlds = some_worlds(seed)
    plain = run(Programs.of([words]), worlds, Semantics("a", tuple(meaning)), mode=mode)
    other = run(Programs.of([renamed]), worlds, Semantics("b", tuple(meaning[i] for i in inverse)), mode=mode)
    assert_same(plain, other)
    assert np.array_equal(plain.events, other.events)


@given(seeds)
def test_a_mirror_image_runs_as_the_original(seed):
    """Left and right exchanged in the words, the world turned over: the robot walks the mirrored path."""
    words = some(seed)
    swap = {w: w for w in range(len(WORDS))}
    swap |= {LEFT: RIGHT, RIGHT: LEFT}
    for condition in ("({}())", "{}())"):
        left, right = (WORDS.index(condition.format(f"{side}_is_clear")) for side in ("left", "right"))
        swap |= {left: right, right: left}
    worlds = some_worlds(seed)
    plain = run(Programs.of([words]), worlds)
    wide = worlds.cells.shape[-1]
    robot = worlds.robot.copy()
    robot[..., 1], robot[..., 2] = wide - 1 - robot[..., 1], -robot[..., 2] % 4
    mirrored = type(worlds)(np.ascontiguousarray(worlds.cells[..., ::-1]), robot, worlds.size)
    other = run(Programs.of([[swap[w] for w in words.tolist()]]), mirrored)
    assert np.array_equal(plain.worlds.cells, other.worlds.cells[..., ::-1])
    assert np.array_equal(plain.worlds.robot[..., 1], wide - 1 - other.worlds.robot[..., 1])
    assert np.array_equal(plain.events, other.events)


@given(seeds)
def test_both_syntaxes_give_the_program_back(seed):
    words = some(seed, depth=5).tolist()
    assert parse(text_of(words)).tolist() == words
    assert parse_tokens(token_text(words)).tolist() == words


@settings(max_examples=300)
@given(
    seeds, st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from(["drop", "swap", "copy", "byte"])), max_size=4)
)
def test_mutated_programs_neither_crash_the_parser_nor_hang_the_machine(seed, edits):
    rng = random.Random(seed)
    for source, read in ((text_of(some(seed)), parse), (token_text(some(seed)), parse_tokens)):
        parts = source.split(" ")
        for at, kind in edits:
            i, j = at % len(parts), rng.randrange(len(parts))
            if kind == "drop" and len(parts) > 1:
                del parts[i]
            elif kind == "swap":
                parts[i], parts[j] = parts[j], parts[i]
            elif kind == "copy":
                parts.insert(j, parts[i])
            elif kind == "byte":
                parts[i] = parts[i][:-1] + chr(rng.randrange(1, 0x2FF))
        try:
            words = read(" ".join(parts))
        except ParseError:
            continue
        done = run(Programs.of([words]), some_worlds(seed), trace=True)
        assert (done.events <= 1000).all()
        done.worlds.check()


@given(st.binary(max_size=200) | st.binary(max_size=40).map(lambda b: b"def run() { move(); " + b))
def test_random_bytes_are_refused_or_are_a_program(source):
    for read, print_ in ((parse, text_of), (parse_tokens, token_text)):
        try:
            words = read(source.decode("latin-1"))
        except ParseError:
            continue
        assert read(print_(words)).tolist() == words.tolist()


def test_the_laws_can_fail():
    """Positive control: under another meaning three left turns and a move are not nothing."""
    worlds = some_worlds(3)
    plain = run(program([MOVE]), worlds)
    turned = run(program([LEFT, LEFT, LEFT, MOVE]), worlds)
    assert not plain.worlds.same_state(turned.worlds).all()
