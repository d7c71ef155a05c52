"""Progress off a terminal: a line when a stage starts, then one for each 5% or 30 s, and never two within 5 s."""

from __future__ import annotations

import io
import re
import threading

import pytest
from rich.console import Console
from whole_runs import call, only

import benchmark.emergence.evaluation as emergence
import benchmark.runner.run as runner
from benchmark.board.tables import format_card
from benchmark.cli.progress import RichProgress, open_progress
from benchmark.installation.source_state import SourceState
from benchmark.runner import plain_progress
from benchmark.runner.plain_progress import PlainProgress, format_duration
from benchmark.runner.record import read_record


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class FlushCounter(io.StringIO):
    """A file that counts how often it is flushed."""

    num_flushes = 0

    def flush(self) -> None:
        self.num_flushes += 1


@pytest.fixture
def file() -> FlushCounter:
    return FlushCounter()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(file, clock) -> PlainProgress:
    return PlainProgress(Console(file=file), clock)


def lines(file: io.StringIO) -> list[str]:
    return file.getvalue().splitlines()


def test_a_stage_is_named_at_once_and_flushed(progress, file, clock):
    progress.start("drawing tasks", 3)
    assert lines(file) == ["0:00:00 drawing tasks: 0 of 3 (0%)"]
    assert file.num_flushes
    clock.seconds += 1
    progress.start("evaluating", 2000, 500)
    assert lines(file)[1:] == ["0:00:01 evaluating: 500 of 2,000 (25%)"]


def test_five_percent_make_a_line_but_not_within_five_seconds(progress, file, clock):
    progress.start("evaluating", 1000)
    for _ in range(40):
        clock.seconds += 0.1
        progress.advance(10)
    assert len(lines(file)) == 1
    clock.seconds += 1.1
    progress.advance(0, "evaluating: test")
    assert lines(file)[1:] == ["0:00:05 evaluating: test: 400 of 1,000 (40%), about 0:00:06 left of this stage"]
    clock.seconds += 6
    progress.advance(49)
    assert len(lines(file)) == 2
    progress.advance(1)
    assert len(lines(file)) == 3


def test_thirty_seconds_make_a_line_without_any_step(progress, file, clock):
    progress.start("probing", None)
    for _ in range(95):
        clock.seconds += 1
        progress.tick()
    assert lines(file) == [f"{format_duration(seconds)} probing" for seconds in (0, 30, 60, 90)]


def test_the_time_left_falls_between_steps_and_stays_once_the_next_ones_are_late(progress, file, clock):
    progress.start("evaluating", 1000, 100)
    clock.seconds += 60
    progress.advance(300)
    seen = []
    for _ in range(4):
        clock.seconds += 30
        progress.tick()
        seen.append(lines(file)[-1].partition(", about ")[2])
    assert seen == [f"{left} left of this stage" for left in ("0:01:30", "0:01:00", "0:01:00", "0:01:00")]
    progress.advance(300)
    clock.seconds += 30
    progress.tick()
    # 600 steps took 180 s, the last 300 take 90 s, and 30 s have passed.
    assert lines(file)[-1].endswith("700 of 1,000 (70%), about 0:01:00 left of this stage")
    clock.seconds += 70
    progress.tick()
    assert lines(file)[-1].endswith("700 of 1,000 (70%)"), "overdue: nothing is known"


def test_steps_that_a_cache_had_say_nothing_of_the_time_left(progress, file, clock):
    progress.start("probing", 8)
    progress.advance(3)
    clock.seconds += 6
    progress.tick()
    assert lines(file)[-1] == "0:00:06 probing: 3 of 8 (38%)"


def test_a_step_count_without_a_total_is_shown(progress, file, clock):
    progress.start("grid", None)
    progress.advance(7, "grid: codelength")
    clock.seconds += 30
    progress.tick()
    assert lines(file)[1:] == ["0:00:30 grid: codelength: 7 done"]


def test_stages_can_wait_for_the_next_line(file, clock):
    progress = PlainProgress(Console(file=file), clock, announces_stages=False)
    progress.start("first", 10)
    progress.tick()
    assert lines(file) == ["0:00:00 first: 0 of 10 (0%)"]
    for number in range(100):
        clock.seconds += 0.25
        progress.start(f"stage {number}", 10)
        progress.advance(1)
    assert len(lines(file)) == 6
    assert "stage 19: 1 of 10 (10%)" in lines(file)[1]


def test_nothing_is_printed_before_a_stage_starts(progress, file, clock):
    clock.seconds += 100
    progress.tick()
    assert not file.getvalue()


def test_lines_come_while_nobody_calls(monkeypatch, file, clock):
    """A thread ticks; here with a clock of the test's own, and without waiting."""
    monkeypatch.setattr(plain_progress, "TICK_SECONDS", 0.001)
    progress = PlainProgress(Console(file=file), clock)
    printed = threading.Event()
    real = progress.write
    monkeypatch.setattr(progress, "write", lambda message: (real(message), printed.set()))
    with progress.displayed():
        progress.start("evaluating", 100)
        printed.clear()
        clock.seconds += 31
        assert printed.wait(60)
    assert lines(file) == ["0:00:00 evaluating: 0 of 100 (0%)", "0:00:31 evaluating: 0 of 100 (0%)"]
    assert not [thread for thread in threading.enumerate() if "tick_until_over" in thread.name]


def test_a_message_is_printed_as_it_is_and_on_one_line(progress, file):
    message = "[bold]path:/a/b[/bold] " + "x" * 300
    progress.write(message)
    assert lines(file) == [message]


class Terminal(io.StringIO):
    """A file that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("display", [RichProgress, emergence.SingleBarProgress])
def test_a_terminal_tells_the_time_left_however_long_a_step_takes(clock, display):
    file = Terminal()
    progress = display(Console(file=file, _environ={"TERM": "xterm", "COLUMNS": "100"}))
    progress.bars.get_time = clock
    with progress.displayed():
        progress.start("drawing tasks", 3)
        progress.advance(3)
        progress.start("evaluating", 2000, 500)
        clock.seconds += 600
        progress.advance(250)
        for _ in range(2):
            clock.seconds += 300
            progress.bars.refresh()
    # 250 of 1,500 steps took 10 minutes; the next 250 are due in 5, then now.
    times = re.findall(r"(\d:\d\d:\d\d) (\d:\d\d:\d\d|-:--:--)", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue()))
    assert ("0:15:00", "0:45:00") in times
    assert ("0:20:00", "0:40:00") in times


@pytest.mark.parametrize(
    ("file", "variables", "kind", "emergence_kind"),
    [
        (Terminal(), {}, RichProgress, emergence.SingleBarProgress),
        (Terminal(), {"TERM": "dumb"}, PlainProgress, PlainProgress),
        (io.StringIO(), {}, PlainProgress, PlainProgress),
        (io.StringIO(), {"FORCE_COLOR": "1"}, PlainProgress, PlainProgress),
    ],
    ids=["terminal", "dumb terminal", "file", "file with colours"],
)
def test_a_terminal_has_bars_and_a_file_has_lines(file, variables, kind, emergence_kind):
    console = Console(file=file, _environ={"TERM": "xterm", **variables})
    assert type(open_progress(console)) is kind
    assert type(emergence._open_progress(console)) is emergence_kind


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3725, "1:02:05")])
def test_durations(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.usefixtures("quick")
def test_a_run_into_a_file_says_at_once_what_it_does(words, tmp_path, capsys, monkeypatch):
    problem = "source edited after build of commit 123456789abc"
    monkeypatch.setattr(runner, "source_state", lambda: SourceState("1" * 40, True, problem))
    seen_at_start: list[str] = []
    real = runner.Run.execute

    def execute(self, backend, progress):
        seen_at_start.extend(capsys.readouterr().err.splitlines())
        return real(self, backend, progress)

    monkeypatch.setattr(runner.Run, "execute", execute)
    assert call(*words, "--limit", 4, "--out", tmp_path) == 0
    folder = only(tmp_path)
    start, eligibility = seen_at_start
    assert start.startswith(words[1])
    assert " on suite " in start
    assert "4 test tasks, about 0:" in start
    assert start.endswith(f"run folder {folder}")
    assert eligibility.startswith("leaderboard-eligible: no (--limit 4; ")
    assert problem in eligibility
    captured = capsys.readouterr()
    assert [
        stage
        for stage in ("drawing tasks", "evaluating", "training probes on states at given programs")
        if f" {stage}: 0 of" not in captured.err
    ] == []
    assert problem in read_record(folder / "record.json").unofficial
    assert "leaderboard-eligible" in captured.out
    assert problem in captured.out


def test_the_card_of_an_eligible_run_says_yes(undisturbed):
    record = read_record(undisturbed / "record.json")
    card = format_card(record.model_copy(update={"official": True, "unofficial": []}))
    assert "leaderboard-eligible" in card
    assert " yes " in card.splitlines()[-2]
