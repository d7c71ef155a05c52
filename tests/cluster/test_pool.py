"""The pool with scripted workers: who gets what, what is attempts again and how often, and what is given up."""

from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise
from threading import Thread

import pytest

from benchmark.cluster import pool as pool_module
from benchmark.cluster.deadlines import Deadlines
from benchmark.cluster.executor import (
    INVALID_MODEL,
    NODE_LOST,
    OUT_OF_MEMORY,
    RAISED,
    STORAGE_FAILED,
    SUCCEEDED,
    TIMED_OUT,
    WORKER_DIED,
    CallResult,
    WorkItem,
)
from benchmark.cluster.pool import Pool
from benchmark.errors import BenchmarkError, ItemsFailed, ModelError, StorageError


class Clock:
    """Goes on only when a executor waits; stands for the module `time` in the pool."""

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
    monkeypatch.setattr(ScriptedExecutor, "clock", clock)
    return clock


class ScriptedExecutor:
    """Returns results by a script: (item, attempt) -> status; a `HANG` call never ends.

    A call takes one wait, or as many seconds as `seconds` has for its item.
    """

    HANG = "hang"
    clock = Clock()

    def __init__(self, script=None, start=SUCCEEDED, seconds=None):
        self.script, self.start, self.seconds = script or {}, start, seconds or {}
        self.ends: dict[object, float] = {}
        self.attempts: Counter[str] = Counter()
        self.calls: list[tuple[int, str, float]] = []
        self.kinds: dict[int, str] = {}
        self.alive: set[int] = set()
        self.max_alive = 0
        self.answers: dict[object, CallResult | None] = {}

    def start_worker(self, kind):
        number = len(self.kinds)
        self.kinds[number] = kind
        self.alive.add(number)
        self.max_alive = max(self.max_alive, len(self.alive))
        call = ("hello", number)
        self.answers[call] = None if self.start == self.HANG else CallResult(self.start, message="no such module")
        return number, call

    def submit(self, handle, item, batch_scale):
        assert handle in self.alive
        attempt = self.attempts[item.name]
        self.attempts[item.name] += 1
        self.calls.append((handle, item.name, batch_scale))
        status = self.script.get((item.name, attempt), SUCCEEDED)
        call = (item.name, attempt)
        self.answers[call] = None if status == self.HANG else CallResult(status, item.payload, "as scripted")
        self.ends[call] = self.clock.now + self.seconds.get(item.name, 0.0)
        return call

    def wait(self, calls, seconds):
        ended = [
            call for call in calls if self.answers[call] is not None and self.ends.get(call, 0.0) <= self.clock.now
        ]
        if not ended:
            self.clock.pass_by(1.0 if self.seconds else 0.01)
        return ended

    def result(self, call):
        return self.answers[call]

    def stop_worker(self, handle):
        self.alive.discard(handle)

    def capacity_message(self):
        return "there is one CPU"


def work_items(names, kind="evaluation", affinity_key="model", retries=None, committed=None, size=1):
    values = committed if committed is not None else []
    statuses = retries if retries is not None else []
    return [
        WorkItem(
            name,
            kind,
            affinity_key,
            None,
            name,
            values.append,
            lambda status, message, name=name: statuses.append((name, status)),
            size,
        )
        for name in names
    ]


def test_everything_is_committed_once_and_shared_out():
    executor, committed = ScriptedExecutor(), []
    Pool(executor, 3).drain(work_items("abcdefgh", committed=committed))
    assert sorted(committed) == list("abcdefgh")
    assert executor.max_alive == 3
    assert {handle for handle, _, _ in executor.calls} == {0, 1, 2}


@pytest.mark.parametrize(
    ("status", "times"), [(RAISED, 1), (INVALID_MODEL, 1), (WORKER_DIED, 2), (NODE_LOST, 9), (OUT_OF_MEMORY, 9)]
)
def test_what_may_pass_is_tried_again_on_a_new_worker(status, times):
    executor = ScriptedExecutor({("b", attempt): status for attempt in range(times)})
    committed, retries = [], []
    Pool(executor, 1).drain(work_items("abc", committed=committed, retries=retries))
    assert sorted(committed) == ["a", "b", "c"]
    assert retries == [("b", status)] * times
    workers = [handle for handle, name, _ in executor.calls if name == "b"]
    assert len(set(workers)) == times + 1
    assert executor.calls[1][1] == "b"
    assert executor.calls[2][1] == "c", "it goes to the back of the queue"


@pytest.mark.parametrize(
    ("status", "times"), [(RAISED, 2), (INVALID_MODEL, 2), (WORKER_DIED, 3), (NODE_LOST, 10), (OUT_OF_MEMORY, 10)]
)
def test_what_does_not_pass_is_given_up_and_named(status, times):
    executor = ScriptedExecutor({("b", attempt): status for attempt in range(99)})
    committed, retries = [], []
    with pytest.raises(ItemsFailed, match=f"1 item failed .b: {status}: as scripted") as caught:
        Pool(executor, 2).drain(work_items("abc", committed=committed, retries=retries))
    assert sorted(committed) == ["a", "c"]
    assert executor.attempts["b"] == times
    assert retries[-1] == ("b", "failed")
    assert caught.value.exit_code == (ModelError.exit_code if status == INVALID_MODEL else 1)


def test_after_running_out_of_memory_the_batch_is_halved():
    executor = ScriptedExecutor({("a", 0): OUT_OF_MEMORY, ("a", 1): OUT_OF_MEMORY, ("z", 0): WORKER_DIED})
    Pool(executor, 1).drain(work_items("ab") + work_items("z", affinity_key="other"))
    assert [scale for _, name, scale in executor.calls if name == "a"] == [1, 0.5, 0.25]
    assert [scale for _, name, scale in executor.calls if name == "b"] == [0.5], "the same model, so the same memory"
    assert [scale for _, name, scale in executor.calls if name == "z"] == [1, 1]


def test_two_that_run_out_of_memory_together_halve_it_once():
    executor = ScriptedExecutor({("a", 0): OUT_OF_MEMORY, ("b", 0): OUT_OF_MEMORY})
    Pool(executor, 2).drain(work_items("abc"))
    assert {scale for _, name, scale in executor.calls if name in "ab"} == {1, 0.5}


def test_a_piece_that_hangs_is_taken_from_its_worker(monkeypatch):
    executor = ScriptedExecutor({("b", 0): ScriptedExecutor.HANG})
    committed, retries = [], []
    Pool(executor, 2, deadline=0.05).drain(work_items("abcd", committed=committed, retries=retries))
    assert sorted(committed) == list("abcd")
    assert retries == [("b", TIMED_OUT)]
    executor = ScriptedExecutor({("b", attempt): ScriptedExecutor.HANG for attempt in range(9)})
    with pytest.raises(ItemsFailed, match="b: deadline: no answer within 0 s"):
        Pool(executor, 2, deadline=0.05).drain(work_items("abcd"))
    assert executor.attempts["b"] == 2


def test_the_deadline_follows_the_slowest_so_far(monkeypatch, clock):
    monkeypatch.setattr("benchmark.cluster.deadlines.MIN_TASKS_DEADLINE", 0.1)
    executor = ScriptedExecutor({("z", 0): ScriptedExecutor.HANG})
    pool, retries = Pool(executor, 1), []
    start = clock.now
    pool.drain(work_items("az", retries=retries))
    assert retries == [("z", TIMED_OUT)]
    assert clock.now - start < 5, "without a piece that was committed it would be half an hour"


@pytest.mark.parametrize(
    ("size", "expected_seconds", "is_ended"), [(0, 0, True), (0, 1500, False), (9, 0, True), (9, 1500, False)]
)
def test_the_first_item_of_a_slow_model_has_the_time_of_its_estimate(size, expected_seconds, is_ended):
    executor, retries = ScriptedExecutor(seconds={"a": 4000.0}), []
    pool = Pool(executor, 1)
    (item,) = work_items("a", retries=retries, size=size)
    pool.deadlines.expect(item.affinity_key, expected_seconds)
    pool.drain([item])
    assert retries == ([("a", TIMED_OUT)] if is_ended else [])


def test_measured_times_of_tasks_replace_the_estimate():
    deadlines = Deadlines()
    (small,), (large,) = work_items("a", size=10), work_items("b", size=20)
    deadlines.expect(small.affinity_key, 10_000)
    assert deadlines.timeout(small) == 200_000
    deadlines.add(small, 30)
    assert deadlines.timeout(large) == 20 * 60


@pytest.mark.parametrize(("size", "retries"), [(0, []), (1, [("b", TIMED_OUT)])])
def test_an_item_from_the_cache_sets_no_deadline_for_one_that_is_computed(size, retries):
    executor, seen = ScriptedExecutor(seconds={"b": 160.0}), []
    Pool(executor, 1).drain(work_items("ab", retries=seen, size=size))
    assert seen == retries


def test_a_check_of_a_few_tasks_sets_no_deadline_for_a_part_of_many():
    check, part = work_items("c", size=0), work_items("p", size=500, retries=(retries := []))
    executor = ScriptedExecutor(seconds={"c": 60.0, "p": 1700.0})
    pool = Pool(executor, 1)
    pool.drain(check)
    pool.drain(part)
    assert retries == []


def test_the_deadline_of_a_part_grows_with_its_tasks():
    executor = ScriptedExecutor(seconds={"s": 10.0, "l": 1900.0})
    pool = Pool(executor, 1)
    pool.drain(work_items("s", size=5))
    pool.drain(work_items("l", size=50, retries=(retries := [])))
    assert retries == [], "50 tasks may take 20 times as long as ten times five"


def test_a_late_item_has_a_longer_deadline_when_it_is_computed_again(clock):
    executor, retries = ScriptedExecutor(seconds={"a": 4000.0}), []
    Pool(executor, 1).drain(work_items("a", retries=retries))
    assert retries == [("a", TIMED_OUT)]
    with pytest.raises(ItemsFailed, match="no answer within 15 s"):
        Pool(ScriptedExecutor(seconds={"a": 40.0}), 1, deadline=15).drain(work_items("a"))


def test_a_worker_keeps_the_model_that_it_has():
    executor = ScriptedExecutor()
    items = [
        p
        for pair in zip(work_items("abcd", affinity_key="one"), work_items("wxyz", affinity_key="two"), strict=True)
        for p in pair
    ]
    Pool(executor, 2).drain(items)
    by_worker = {n: [name in "abcd" for handle, name, _ in executor.calls if handle == n] for n in (0, 1)}
    changes = sum(a != b for names in by_worker.values() for a, b in pairwise(names))
    assert changes <= 1


def test_workers_of_another_kind_make_room():
    executor = ScriptedExecutor()
    pool = Pool(executor, 2)
    pool.drain(work_items("abc"))
    pool.drain(work_items("fg", kind="fit"))
    assert executor.max_alive == 2
    assert sorted(executor.kinds.values()) == ["evaluation", "evaluation", "fit", "fit"]


@pytest.mark.parametrize("problem", [StorageError("disk full"), RuntimeError("a bug")])
def test_what_cannot_be_committed_stops_everything(problem):
    def fail(value):
        raise problem

    work = work_items("abc")
    work[1] = WorkItem("b", "evaluation", "model", None, "b", fail)
    with pytest.raises(type(problem), match=str(problem)):
        Pool(ScriptedExecutor(), 1).drain(work)


def test_a_worker_without_room_on_disk_stops_everything():
    executor = ScriptedExecutor({("a", 0): STORAGE_FAILED})
    with pytest.raises(StorageError, match="as scripted"):
        Pool(executor, 1).drain(work_items("abc"))
    assert not executor.alive


def test_an_attempt_whose_file_is_gone_is_made_again():
    attempts = []

    def commit(value):
        attempts.append(value)
        if len(attempts) == 1:
            raise FileNotFoundError("attempt")

    Pool(ScriptedExecutor(), 1).drain([WorkItem("a", "evaluation", "model", None, "a", commit)])
    assert attempts == ["a", "a"]


def test_workers_that_cannot_start_are_not_waited_for():
    with pytest.raises(BenchmarkError, match="no such module"):
        Pool(ScriptedExecutor(start=RAISED), 2).drain(work_items("ab"))
    with pytest.raises(BenchmarkError, match=r"no worker started within 0 s: .*there is one CPU"):
        Pool(ScriptedExecutor(start=ScriptedExecutor.HANG), 2, patience=0.1).drain(work_items("ab"))


def test_a_worker_that_never_reports_is_asked_for_anew(monkeypatch):
    monkeypatch.setattr(pool_module, "START_DEADLINE", 0.05)
    executor, committed = ScriptedExecutor(start=ScriptedExecutor.HANG), []
    start_worker = executor.start_worker

    def second_works(kind):
        handle, call = start_worker(kind)
        executor.start = SUCCEEDED
        return handle, call

    executor.start_worker = second_works
    Pool(executor, 1).drain(work_items("ab", committed=committed))
    assert sorted(committed) == ["a", "b"]
    assert executor.alive == {1}


def test_several_runs_share_a_pool_and_fail_apart():
    executor = ScriptedExecutor({("m", attempt): RAISED for attempt in range(9)})
    pool, committed, failed = Pool(executor, 2), [], []

    def drain(names):
        try:
            pool.drain(work_items(names, affinity_key=names, committed=committed))
        except ItemsFailed as error:
            failed.append(str(error))

    threads = [Thread(target=drain, args=(names,)) for names in ("abcdef", "klmnop", "uvwxyz")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(committed) == sorted("abcdefklnopuvwxyz")
    assert len(failed) == 1
    assert "m: raised" in failed[0]


def test_a_pool_that_is_stopped_ends_whoever_waits():
    executor = ScriptedExecutor({("a", 0): ScriptedExecutor.HANG})
    pool = Pool(executor, 1)
    messages: list[str] = []

    def wait():
        try:
            pool.drain(work_items("ab"))
        except BenchmarkError as error:
            messages.append(str(error))

    thread = Thread(target=wait)
    thread.start()
    while not executor.calls:
        time.sleep(0.001)
    pool.stop()
    thread.join()
    assert "committed results are kept" in messages[0]
    assert not executor.alive


def test_handing_out_costs_little(benchmark):
    benchmark(lambda: Pool(ScriptedExecutor(), 4).drain(work_items([f"piece-{i}" for i in range(200)])))
