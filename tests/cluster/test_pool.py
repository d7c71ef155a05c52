"""The pool with scripted workers: who gets what, what is tried again and how often, and what is given up."""

from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise
from threading import Thread

import pytest

from benchmark.cluster import pool as pool_module
from benchmark.cluster.executor import WORKER_DIED, SUCCEEDED, INVALID_MODEL, TIMED_OUT, NODE_LOST, OUT_OF_MEMORY, RAISED, STORAGE_FAILED, CallResult, WorkItem
from benchmark.cluster.pool import Pool
from benchmark.errors import BenchmarkError, ModelError, ShardsFailed, StorageError


class Clock:
    """Goes on only when a crew waits; stands for the module `time` in the pool."""

    now = 1000.0

    def monotonic(self):
        return self.now

    def pass_by(self, seconds):
        self.now += seconds
        # Other threads may want their turn.
        time.sleep(0)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(pool_module, "time", clock)
    monkeypatch.setattr(ScriptedCrew, "clock", clock)
    return clock


class ScriptedCrew:
    """Answers by a script: (piece, attempt) -> outcome; `HANG` never answers. A call takes one turn of waiting."""

    HANG = "hang"
    clock = Clock()

    def __init__(self, script=None, start=SUCCEEDED):
        self.script, self.start = script or {}, start
        self.attempts: Counter[str] = Counter()
        self.calls: list[tuple[int, str, float]] = []
        self.kinds: dict[int, str] = {}
        self.alive: set[int] = set()
        self.most_alive = 0
        self.answers: dict[object, CallResult | None] = {}

    def start_worker(self, kind):
        number = len(self.kinds)
        self.kinds[number] = kind
        self.alive.add(number)
        self.most_alive = max(self.most_alive, len(self.alive))
        call = ("hello", number)
        self.answers[call] = None if self.start == self.HANG else CallResult(self.start, message="no such module")
        return number, call

    def submit(self, handle, item, batch_scale):
        assert handle in self.alive
        attempt = self.attempts[item.name]
        self.attempts[item.name] += 1
        self.calls.append((handle, item.name, share))
        outcome = self.script.get((item.name, attempt), SUCCEEDED)
        call = (item.name, attempt)
        self.answers[call] = None if outcome == self.HANG else CallResult(outcome, item.payload, "as scripted")
        return call

    def wait(self, calls, seconds):
        ended = [call for call in calls if self.answers[call] is not None]
        if not ended:
            self.clock.pass_by(0.01)
        return ended

    def result(self, call):
        return self.answers[call]

    def stop_worker(self, handle):
        self.alive.discard(handle)

    def capacity_message(self):
        return "there is one CPU"


def pieces(names, kind="evaluation", held="model", told=None, committed=None):
    done = committed if committed is not None else []
    heard = told if told is not None else []
    return [
        WorkItem(name, kind, held, None, name, done.append, lambda cause, why, name=name: heard.append((name, cause)))
        for name in names
    ]


def test_everything_is_committed_once_and_shared_out():
    crew, done = ScriptedCrew(), []
    Pool(crew, 3).drain(pieces("abcdefgh", committed=done))
    assert sorted(done) == list("abcdefgh")
    assert crew.most_alive == 3
    assert {handle for handle, _, _ in crew.calls} == {0, 1, 2}


@pytest.mark.parametrize(("cause", "times"), [(RAISED, 1), (INVALID_MODEL, 1), (WORKER_DIED, 2), (NODE_LOST, 9), (OUT_OF_MEMORY, 9)])
def test_what_may_pass_is_tried_again_on_a_new_worker(cause, times):
    crew = ScriptedCrew({("b", attempt): cause for attempt in range(times)})
    done, told = [], []
    Pool(crew, 1).drain(pieces("abc", committed=done, told=told))
    assert sorted(done) == ["a", "b", "c"]
    assert told == [("b", cause)] * times
    workers = [handle for handle, name, _ in crew.calls if name == "b"]
    assert len(set(workers)) == times + 1
    assert crew.calls[1][1] == "b"
    assert crew.calls[2][1] == "c", "it goes to the back of the queue"


@pytest.mark.parametrize(("cause", "times"), [(RAISED, 2), (INVALID_MODEL, 2), (WORKER_DIED, 3), (NODE_LOST, 10), (OUT_OF_MEMORY, 10)])
def test_what_does_not_pass_is_given_up_and_named(cause, times):
    crew = ScriptedCrew({("b", attempt): cause for attempt in range(99)})
    done, told = [], []
    with pytest.raises(ShardsFailed, match=f"1 of the shards failed .b: {cause}: as scripted") as caught:
        Pool(crew, 2).drain(pieces("abc", committed=done, told=told))
    assert sorted(done) == ["a", "c"]
    assert crew.attempts["b"] == times
    assert told[-1] == ("b", "failed")
    assert caught.value.exit_code == (ModelError.exit_code if cause == INVALID_MODEL else 1)


def test_after_running_out_of_memory_the_batch_is_halved():
    crew = ScriptedCrew({("a", 0): OUT_OF_MEMORY, ("a", 1): OUT_OF_MEMORY, ("z", 0): WORKER_DIED})
    Pool(crew, 1).drain(pieces("ab") + pieces("z", held="other"))
    assert [share for _, name, share in crew.calls if name == "a"] == [1, 0.5, 0.25]
    assert [share for _, name, share in crew.calls if name == "b"] == [0.5], "the same model, so the same memory"
    assert [share for _, name, share in crew.calls if name == "z"] == [1, 1]


def test_two_that_run_out_of_memory_together_halve_it_once():
    crew = ScriptedCrew({("a", 0): OUT_OF_MEMORY, ("b", 0): OUT_OF_MEMORY})
    Pool(crew, 2).drain(pieces("abc"))
    assert {share for _, name, share in crew.calls if name in "ab"} == {1, 0.5}


def test_a_piece_that_hangs_is_taken_from_its_worker(monkeypatch):
    crew = ScriptedCrew({("b", 0): ScriptedCrew.HANG})
    done, told = [], []
    Pool(crew, 2, deadline=0.05).drain(pieces("abcd", committed=done, told=told))
    assert sorted(done) == list("abcd")
    assert told == [("b", TIMED_OUT)]
    crew = ScriptedCrew({("b", attempt): ScriptedCrew.HANG for attempt in range(9)})
    with pytest.raises(ShardsFailed, match="b: deadline: no answer within 0 s"):
        Pool(crew, 2, deadline=0.05).drain(pieces("abcd"))
    assert crew.attempts["b"] == 2


def test_the_deadline_follows_the_slowest_so_far(monkeypatch, clock):
    monkeypatch.setattr(pool_module, "MIN_DEADLINE", 0.1)
    crew = ScriptedCrew({("z", 0): ScriptedCrew.HANG})
    pool, told = Pool(crew, 1), []
    began = clock.now
    pool.drain(pieces("az", told=told))
    assert told == [("z", TIMED_OUT)]
    assert clock.now - began < 5, "without a piece that was done it would be half an hour"


def test_a_worker_keeps_the_model_that_it_has():
    crew = ScriptedCrew()
    mixed = [p for pair in zip(pieces("abcd", held="one"), pieces("wxyz", held="two"), strict=True) for p in pair]
    Pool(crew, 2).drain(mixed)
    by_worker = {n: [name in "abcd" for handle, name, _ in crew.calls if handle == n] for n in (0, 1)}
    changes = sum(a != b for names in by_worker.values() for a, b in pairwise(names))
    assert changes <= 1


def test_workers_of_another_kind_make_room():
    crew = ScriptedCrew()
    pool = Pool(crew, 2)
    pool.drain(pieces("abc"))
    pool.drain(pieces("fg", kind="fit"))
    assert crew.most_alive == 2
    assert sorted(crew.kinds.values()) == ["evaluation", "evaluation", "fit", "fit"]


@pytest.mark.parametrize("problem", [StorageError("disk full"), RuntimeError("a bug")])
def test_what_cannot_be_committed_stops_everything(problem):
    def fail(value):
        raise problem

    work = pieces("abc")
    work[1] = WorkItem("b", "evaluation", "model", None, "b", fail)
    with pytest.raises(type(problem), match=str(problem)):
        Pool(ScriptedCrew(), 1).drain(work)


def test_a_worker_without_room_on_disk_stops_everything():
    crew = ScriptedCrew({("a", 0): STORAGE_FAILED})
    with pytest.raises(StorageError, match="as scripted"):
        Pool(crew, 1).drain(pieces("abc"))
    assert not crew.alive


def test_an_attempt_whose_file_is_gone_is_made_again():
    tried = []

    def commit(value):
        tried.append(value)
        if len(tried) == 1:
            raise FileNotFoundError("attempt")

    Pool(ScriptedCrew(), 1).drain([WorkItem("a", "evaluation", "model", None, "a", commit)])
    assert tried == ["a", "a"]


def test_workers_that_cannot_start_are_not_waited_for():
    with pytest.raises(BenchmarkError, match="no such module"):
        Pool(ScriptedCrew(start=RAISED), 2).drain(pieces("ab"))
    with pytest.raises(BenchmarkError, match=r"no worker started within 0 s: .*there is one CPU"):
        Pool(ScriptedCrew(start=ScriptedCrew.HANG), 2, patience=0.1).drain(pieces("ab"))


def test_a_worker_that_never_reports_is_asked_for_anew(monkeypatch):
    monkeypatch.setattr(pool_module, "START_DEADLINE", 0.05)
    crew, done = ScriptedCrew(start=ScriptedCrew.HANG), []
    start_worker = crew.start_worker

    def second_works(kind):
        handle, call = hire(kind)
        crew.start = SUCCEEDED
        return handle, call

    crew.start_worker = second_works
    Pool(crew, 1).drain(pieces("ab", committed=done))
    assert sorted(done) == ["a", "b"]
    assert crew.alive == {1}


def test_several_runs_share_a_pool_and_fail_apart():
    crew = ScriptedCrew({("m", attempt): RAISED for attempt in range(9)})
    pool, done, failed = Pool(crew, 2), [], []

    def one(names):
        try:
            pool.drain(pieces(names, held=names, committed=done))
        except ShardsFailed as problem:
            failed.append(str(problem))

    threads = [Thread(target=one, args=(names,)) for names in ("abcdef", "klmnop", "uvwxyz")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == sorted("abcdefklnopuvwxyz")
    assert len(failed) == 1
    assert "m: raised" in failed[0]


def test_a_pool_that_is_stopped_ends_whoever_waits():
    crew = ScriptedCrew({("a", 0): ScriptedCrew.HANG})
    pool = Pool(crew, 1)
    said: list[str] = []

    def wait():
        try:
            pool.drain(pieces("ab"))
        except BenchmarkError as problem:
            said.append(str(problem))

    thread = Thread(target=wait)
    thread.start()
    while not crew.calls:
        time.sleep(0.001)
    pool.stop()
    thread.join()
    assert "what is committed is kept" in said[0]
    assert not crew.alive


def test_handing_out_costs_little(benchmark):
    benchmark(lambda: Pool(ScriptedCrew(), 4).drain(pieces([f"piece-{i}" for i in range(200)])))
