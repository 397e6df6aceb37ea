"""Progress: a bar in a terminal, and a line now and then in a log."""

import io
import re
import sys

import pytest

import probe.progress
from probe.progress import progress_bar, say


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test moves on."""

    class Clock:
        now = 1000.0

        def __call__(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(probe.progress.time, "monotonic", clock)
    monkeypatch.setattr("tqdm.std.time", clock)
    return clock


def test_a_log_has_a_line_at_the_start_and_end_and_every_half_minute(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", log := io.StringIO())
    with progress_bar(desc="rollouts", total=1200, unit="text", show=True) as bar:
        for _ in range(1200):
            clock.now += 0.125
            bar.update()
            bar.set_postfix(loss="0.5")
    assert log.getvalue().splitlines() == [
        "rollouts: 0 of 1,200 texts",
        "rollouts: 240 of 1,200 texts (20%), 00:30 so far, 02:00 left, loss=0.5",
        "rollouts: 480 of 1,200 texts (40%), 01:00 so far, 01:30 left, loss=0.5",
        "rollouts: 720 of 1,200 texts (60%), 01:30 so far, 01:00 left, loss=0.5",
        "rollouts: 960 of 1,200 texts (80%), 02:00 so far, 00:30 left, loss=0.5",
        "rollouts: 1,200 of 1,200 texts (100%), 02:30 so far, 00:00 left, loss=0.5",
        "rollouts: 1,200 of 1,200 texts in 02:30, loss=0.5",
    ]


def test_a_stage_of_unknown_length_that_is_interrupted(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", log := io.StringIO())
    with pytest.raises(ZeroDivisionError), progress_bar(desc="vectors", show=True) as bar:
        for i in range(60):
            clock.now += 1
            bar.update()
            1 / (40 - i)
    assert log.getvalue().splitlines() == [
        "vectors: 0 steps",
        "vectors: 30 steps, 00:30 so far",
        "vectors: 41 steps in 00:41",
    ]


def test_what_comes_often_has_lines_only_where_it_takes_long(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", log := io.StringIO())
    for _ in progress_bar(range(10), desc="verifying", leave=False, show=True):
        clock.now += 1
    for _ in progress_bar([], desc="nothing to do", show=True):
        pass
    assert log.getvalue() == ""
    for _ in progress_bar(range(8), desc="verifying", leave=False, show=True):
        clock.now += 10
    lines = log.getvalue().splitlines()
    assert len(lines) == 2 and all(line.startswith("verifying: ") for line in lines)


def test_parts_that_are_named_begin_with_a_line(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", log := io.StringIO())
    parts = progress_bar(["heads", "tokens"], desc="parts", unit="part", show=True)
    for part in parts:
        parts.set_description(part)
        clock.now += 2
    assert log.getvalue().splitlines() == [
        "parts: 0 of 2 parts", "heads: 0 of 2 parts", "tokens: 1 of 2 parts", "tokens: 2 of 2 parts in 00:04"
    ]  # fmt: skip


def test_a_terminal_has_a_bar_with_the_time_left(monkeypatch):
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    for _ in progress_bar(range(3), desc="rollouts", unit="text", show=True):
        pass
    assert re.search(r"\rrollouts: +100%\|.*\| 3/3 \[\d\d:\d\d<\d\d:\d\d, ", screen.getvalue())


def test_nothing_is_shown_unless_it_is_asked_for(monkeypatch):
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        assert list(progress_bar([1, 2], desc="rollouts", show=False)) == [1, 2]
        assert stream.getvalue() == ""


def test_what_is_said_is_a_line_on_stderr_and_no_bar_is_written_again(capsys):
    with progress_bar(desc="rollouts", total=2, show=True):
        say("note: short")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == ["rollouts: 0 of 2 steps", "note: short", "rollouts: 0 of 2 steps in 00:00"]
