"""Workers that are slow to start, and workers that die again and again: a scripted executor, no Ray."""

from __future__ import annotations

import ast
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from test_pool import ScriptedExecutor, work_items

from benchmark.cluster import pool as pool_module
from benchmark.cluster.executor import INVALID_MODEL, NODE_LOST, STARTING, SUCCEEDED, WORKER_DIED, CallResult
from benchmark.cluster.local_executor import LocalExecutor
from benchmark.cluster.pool import Pool
from benchmark.cluster.ray_actor import RayActor
from benchmark.errors import BenchmarkError


class Clock:
    """Stands for the module `time` in the pool; goes on when a executor waits."""

    now = 1000.0

    def monotonic(self):
        return self.now


class SlowExecutor(ScriptedExecutor):
    """Workers that start in steps; `steps[worker]` are seconds of each (the last worker's hold for all later ones).

    A step of None never ends. The first step places the worker, the last makes it ready.
    """

    def __init__(self, clock, steps, script=None, lost=()):
        super().__init__(script)
        self.clock, self.steps, self.lost_results = clock, steps, set(lost)
        self.at: dict[int, int] = {}
        self.busy: dict[int, float] = {}
        self.due: dict[object, float] = {}
        self.num_calls = 0

    def start_worker(self, kind):
        number, _ = super().start_worker(kind)
        self.at[number] = 0
        return number, self._step(number)

    def continue_start(self, handle, resend=False):
        self.at[handle] += not resend
        return self._step(handle, resend)

    def _step(self, number, resend=False):
        steps = self.steps[min(number, len(self.steps) - 1)]
        self.num_calls += 1
        call = ("start", number, self.num_calls)
        seconds = steps[min(self.at[number], len(steps) - 1)]
        is_last = self.at[number] >= len(steps) - 1
        self.answers[call] = (
            CallResult(SUCCEEDED) if is_last else CallResult(STARTING, f"importing step {self.at[number] + 1}")
        )
        if not resend:
            self.busy[number] = float("inf") if seconds is None else self.clock.now + seconds
        is_lost = not resend and (number, self.at[number]) in self.lost_results
        self.due[call] = float("inf") if is_lost else max(self.busy[number], self.clock.now)
        return call

    def wait(self, calls, seconds):
        now = self.clock.now
        ended = [call for call in calls if self.answers[call] is not None and self.due.get(call, 0.0) <= now]
        if not ended:
            self.clock.now += 1.0
        return ended


class Events(list):
    """What a pool reports: (event, details), and the lines that it says."""

    def __init__(self):
        super().__init__()
        self.lines: list[str] = []

    def log(self, event, **details):
        self.append((event, details))


@pytest.fixture
def clock(monkeypatch):
    """A clock of the pool's that these tests move."""
    clock = Clock()
    monkeypatch.setattr(pool_module, "time", clock)
    return clock


def drained(pool, names="abcd", events=None):
    committed, events = [], Events() if events is None else events
    with pool.reporting(events.log, events.lines.append):
        pool.drain(work_items(names, committed=committed))
    assert sorted(committed) == sorted(names)
    return events


def test_a_worker_that_imports_for_long_is_left_alone(clock):
    executor = SlowExecutor(clock, [[20, 300, 400, 0]])
    events = drained(Pool(executor, 2))
    assert len(executor.kinds) == 2, "nobody was started twice, though a step took three times the start deadline"
    assert events == []
    assert clock.now >= 1720


def test_an_answer_of_a_starting_worker_that_was_lost_is_asked_for_again(clock):
    executor = SlowExecutor(clock, [[1, 1, 1, 1]], lost=[(0, 1)])
    events = drained(Pool(executor, 1))
    assert len(executor.kinds) == 1
    assert executor.num_calls == 5, "four steps, one of them twice"
    assert events == []
    assert clock.now < 1200


def test_a_worker_without_a_word_is_replaced_after_times_that_grow(clock):
    executor = SlowExecutor(clock, [[None], [None], [400, 0]])
    events = drained(Pool(executor, 1, patience=1000))
    assert len(executor.kinds) == 3, (
        "the third would not be placed within the first deadline, and was given four times as long"
    )
    assert [event for event, _ in events] == ["worker given up"] * 2
    assert [details["why"] for _, details in events] == [f"no message within {s} s" for s in (120, 240)]
    assert all(details["stage"] == "not placed yet" and "load" in details for _, details in events)
    assert len(events.lines) == 2


def test_growth_of_the_deadline_is_bounded(clock):
    pool = Pool(SlowExecutor(clock, [[None], [1]]), 1, patience=10_000)
    pool.timeout_growth = pool_module.MAX_START_GROWTH
    ((_, details),) = drained(pool)
    assert details["why"] == "no message within 960 s"


def test_a_worker_that_stands_still_while_importing_is_replaced_at_last(clock):
    executor = SlowExecutor(clock, [[0, 0], [0, None], [0, 0]])
    events = drained(Pool(executor, 2), [f"p{i}" for i in range(3)])
    assert events == []
    executor = SlowExecutor(clock, [[0, None], [0, 0]])
    ((event, details),) = drained(Pool(executor, 1, patience=700))
    assert event == "worker given up"
    assert (details["stage"], details["kind"]) == ("importing step 1", "evaluation")
    assert details["why"] == "no message within 600 s"


def test_the_true_reason_is_said_when_imports_never_end(clock):
    with pytest.raises(BenchmarkError) as caught:
        Pool(SlowExecutor(clock, [[0, None]]), 2).drain(work_items("ab"))
    message = str(caught.value)
    assert re.search(r"no worker started within 600 s: \d+ were started", message)
    assert "2 of the last 2 are still importing step 1 after 60" in message
    assert re.search(r"this machine's load is [\d.]+ on \d+ CPUs", message)
    assert "use fewer --workers" in message
    assert "one CPU" not in message, "the cluster is not to blame"


def test_the_true_reason_is_said_when_no_process_was_given(clock):
    with pytest.raises(BenchmarkError) as caught:
        Pool(SlowExecutor(clock, [[None]]), 2).drain(work_items("ab"))
    message = str(caught.value)
    assert "none of them has a running process; there is one CPU" in message
    started = int(re.search(r"(\d+) were started", message)[1])
    assert started == 6, "two after 0 s, two after 120, two after 360"


def test_patience_counts_from_the_last_sign_of_life(clock):
    steps = [90] * 12 + [0]
    assert drained(Pool(SlowExecutor(clock, [steps]), 1)) == []
    assert clock.now > 2000, "more than the patience in all, never so long without a word"


def test_a_start_that_fails_is_logged_with_its_reason():
    executor, events = ScriptedExecutor(start=INVALID_MODEL), Events()
    pool = Pool(executor, 1)
    with pool.reporting(events.log, events.lines.append), pytest.raises(BenchmarkError, match="3 failed"):
        pool.drain(work_items("a"))
    assert len(events) == 3
    assert all("invalid model: no such module" in details["why"] for _, details in events)


def test_several_listeners_log_and_one_speaks():
    executor, one, two = ScriptedExecutor(start=INVALID_MODEL), Events(), Events()
    pool = Pool(executor, 1)
    with pool.reporting(one.log, one.lines.append):
        with pool.reporting(two.log, two.lines.append), pytest.raises(BenchmarkError):
            pool.drain(work_items("a"))
        assert len(pool.listeners) == 1
    assert pool.listeners == ()
    assert (len(one), len(two), len(one.lines), len(two.lines)) == (3, 3, 3, 0)


@pytest.mark.parametrize("status", [WORKER_DIED, NODE_LOST])
def test_workers_that_always_die_stop_the_run(status):
    names = [f"p{i}" for i in range(200)]
    executor = ScriptedExecutor({(name, attempt): status for name in names for attempt in range(99)})
    committed = []
    with pytest.raises(
        BenchmarkError, match=rf"died 32 times in a row and no work item .* {status}: as scripted.*run the same"
    ):
        Pool(executor, 2).drain(work_items(names, committed=committed))
    assert committed == []
    assert len(executor.calls) <= 34, "not three times each of 200"
    assert not executor.alive


def test_workers_that_die_now_and_then_do_not_stop_it():
    names = [f"p{i}" for i in range(200)]
    executor = ScriptedExecutor({(name, 0): WORKER_DIED for name in names[::2]})
    committed = []
    Pool(executor, 2).drain(work_items(names, committed=committed))
    assert sorted(committed) == sorted(names)


class InProcessExecutor(ScriptedExecutor):
    """Computes in the call itself, as `LocalExecutor` does; what is `late` until it has been `reported`."""

    computes_in_call = LocalExecutor.computes_in_call

    def __init__(self, late, reported):
        super().__init__()
        self.late, self.reported = late, reported

    def submit(self, handle, item, batch_scale):
        if item.name in self.late:
            while not self.reported():
                time.sleep(0.01)
        return super().submit(handle, item, batch_scale)


def test_a_piece_that_hangs_in_this_process_is_reported():
    events = Events()
    drained(Pool(InProcessExecutor("b", lambda: events), 1, deadline=1), events=events)
    assert [(event, details["piece"]) for event, details in events] == [("late", "b")] * len(events)
    assert events
    assert "b: no end after 1 s, and in this process (--workers 0) nothing can end it" in events.lines[0]
    assert "--workers 1" in events.lines[0]


def test_a_local_executor_is_ready_at_once():
    executor = LocalExecutor()
    handle, call = executor.start_worker("fit")
    assert executor.result(call).status == SUCCEEDED
    assert executor.result(executor.continue_start(handle)).status == SUCCEEDED


def test_a_clock_that_is_set_back_changes_nothing(monkeypatch):
    clock = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    committed, retries = [], []
    executor = ScriptedExecutor({("b", 0): ScriptedExecutor.HANG, ("c", 0): WORKER_DIED})
    Pool(executor, 2, deadline=0.3).drain(work_items("abcd", committed=committed, retries=retries))
    assert sorted(committed) == list("abcd")
    assert sorted(retries) == [("b", "deadline"), ("c", WORKER_DIED)]


def test_no_code_measures_time_by_a_clock_that_can_be_set():
    source = Path(pool_module.__file__).parent
    for path in sorted(source.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in {("time", "time"), ("time", "time_ns")}, path.name
            if isinstance(node, ast.ImportFrom) and node.module == "time":
                assert not {alias.name for alias in node.names} & {"time", "time_ns"}, path.name
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
                assert not {"now", "utcnow"} & names_called(node), f"{path.name}: a difference of times of day"


def names_called(node):
    """Names of functions that are called somewhere below a node."""
    calls = [below.func for below in ast.walk(node) if isinstance(below, ast.Call)]
    return {f.attr if isinstance(f, ast.Attribute) else getattr(f, "id", "") for f in calls}


def test_events_with_times_that_go_backwards_are_read_as_they_stand(tmp_path, monkeypatch):
    from benchmark.runner import folder as folder_module
    from benchmark.status import read_status

    times = iter(["2026-01-01T10:00:00+00:00", "2026-01-01T09:00:00+00:00", "2025-12-31T09:00:00+00:00"])
    monkeypatch.setattr(folder_module, "_now", lambda: next(times))
    run = folder_module.RunFolder(tmp_path)
    run.log("started", total={"blind": 1})
    run.log("committed", piece="blind-000000")
    run.log("finished")
    status = read_status(tmp_path)
    assert status.committed == {"blind": 1}
    assert status.last == "2025-12-31T09:00:00+00:00", "the last event is the last line"
    assert datetime.fromisoformat(status.last) < datetime.now(UTC)


def test_an_actor_says_what_comes_next_and_imports_one_module_a_call(monkeypatch):
    imported = []
    monkeypatch.setattr("benchmark.cluster.ray_actor.import_module", imported.append)
    monkeypatch.setattr("benchmark.cluster.ray_actor._node_hardware", lambda: "a processor")
    monkeypatch.setattr("benchmark.cluster.ray_actor.code_versions", lambda: {"torch": "2"})
    body = RayActor(1, ("one", "two"))
    assert body.start({"torch": "2"}) == CallResult(STARTING, "importing one")
    assert imported == []
    assert body.start({"torch": "2"}, resend=True) == CallResult(STARTING, "importing one"), (
        "asked again, it answers the same"
    )
    assert imported == []
    assert body.start({"torch": "2"}) == CallResult(STARTING, "importing two")
    assert body.start({"torch": "2"}) == CallResult(SUCCEEDED, "a processor")
    assert imported == ["one", "two"]
    assert body.start({"torch": "2"}) == CallResult(SUCCEEDED, "a processor")
    other = RayActor(1, ())
    result = other.start({"torch": "3"})
    assert result.status == INVALID_MODEL
    assert "torch 2, not 3" in result.message


def test_an_import_that_failed_fails_again():
    body = RayActor(1, ("no_such_module_anywhere",))
    body.start({})
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError):
            body.start({})
