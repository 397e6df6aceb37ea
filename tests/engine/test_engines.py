"""Engines: tasks in other processes, in order, tried again, and ended with their parent."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from functools import partial

import pytest
from hypothesis import given, strategies as st

from probe.engine import Engine, Task, engine_of, run_tasks
from probe.engine.tasks import LostBefore
from probe.errors import ProbeError
from tests.engine import jobs

TWO = Engine("processes", 2)


def do(engine: Engine, tasks: list[Task], folder, name: str = "tasks") -> None:
    with engine.open(jobs.Bench(folder), folder) as workers:
        workers.run(tasks, name=name)


def task(name: str, job=jobs.mark, after: tuple[str, ...] = (), **how) -> Task:
    return Task(name, partial(job, name=name, **how), after)


def done(folder) -> list[str]:
    return sorted(path.name.removeprefix("done-") for path in folder.glob("done-*"))


@pytest.mark.parametrize(
    "said", ["", "here:2", "processes", "processes:0", "processes:-1", "processes:x", "slurm", "Ray"]
)
def test_unknown_engines_are_refused(said):
    with pytest.raises(ProbeError, match=r"engine is .*; give here, processes:N .* or ray\[:ADDRESS\]"):
        engine_of(said)


def test_tasks_wait_for_those_before_them(tmp_path):
    tasks = [task("c", after=("a", "b")), task("a", seconds=0.2), task("b"), task("d", after=("c",))]
    do(TWO, tasks, tmp_path)
    assert done(tmp_path) == ["a", "b", "c", "d"]
    assert (tmp_path / "done-c").read_text().split() == ["done-a", "done-b"]
    assert (tmp_path / "done-d").read_text().split() == ["done-a", "done-b", "done-c"]
    assert 1 <= len(list(tmp_path.glob("begun-*"))) <= 2, "each process begins once"


def test_workers_stay_between_tasks_and_end_with_the_block(tmp_path):
    with TWO.open(jobs.Bench(tmp_path), tmp_path) as workers:
        assert not list(tmp_path.glob("begun-*")), "nothing starts before the first task"
        for names in (("a", "b"), ("c", "d"), ("e",)):
            workers.run([task(name, seconds=0.2) for name in names], name="tasks")
    begun = [int(path.name.removeprefix("begun-")) for path in tmp_path.glob("begun-*")]
    assert len(begun) == 2
    assert not any(os.path.exists(f"/proc/{worker}") for worker in begun)
    assert done(tmp_path) == ["a", "b", "c", "d", "e"]


def test_a_task_is_tried_three_times_and_the_others_go_on(tmp_path):
    tasks = [
        task("hopeless", jobs.fail),
        task("never", after=("hopeless",)),
        task("slow", jobs.fail, until=2),
        task("fine"),
        task("killed", jobs.die_once),
    ]
    with pytest.raises(ProbeError) as raised:
        do(TWO, tasks, tmp_path)
    assert str(raised.value) == (
        "2 of 5 tasks are unfinished, first hopeless (ValueError: in try 2); run the same command again, with any "
        "engine, to resume"
    )
    assert done(tmp_path) == ["fine", "killed", "slow"]
    assert len(list(tmp_path.glob("try-hopeless-*"))) == 3


def test_a_process_that_an_error_broke_is_replaced(tmp_path):
    names = ["a", "b", "c", "d", "e"]
    tasks = [task("broken", jobs.break_once), *(task(name, jobs.mark_unless_broken, seconds=0.3) for name in names)]
    do(TWO, tasks, tmp_path)
    assert done(tmp_path) == ["a", "b", "broken", "c", "d", "e"]
    do(Engine("processes", 1), [task("broken again", jobs.break_once), task("f", jobs.mark_unless_broken)], tmp_path)
    assert {"broken again", "f"} <= {*done(tmp_path)}


class Machines:
    """Workers of which so many are gone before their next task; each task is recorded when it begins."""

    def __init__(self, gone: int) -> None:
        self.gone, self.begun = gone, []

    def room(self) -> int:
        return 1

    def submit(self, task: Task) -> "Future[None]":
        future: Future[None] = Future()
        if self.gone:
            self.gone -= 1
            future.set_exception(LostBefore("gone"))
        else:
            self.begun.append(task.name)
            future.set_result(None)
        return future


@given(st.integers(0, 60), st.integers(1, 5))
def test_machines_that_were_lost_while_idle_do_not_count_against_a_task(gone, n):
    workers = Machines(gone)
    run_tasks(workers, [task(str(i)) for i in range(n)], name="tasks")
    assert sorted(workers.begun) == [str(i) for i in range(n)]


@pytest.mark.parametrize("job", [jobs.refuse, jobs.refuse_after_cuda])
def test_a_mistake_of_the_user_is_said_once(tmp_path, job):
    with pytest.raises(ProbeError, match=r"^taste is wrong; write it otherwise$"):
        do(TWO, [task("taste", job)], tmp_path)
    assert len(list(tmp_path.glob("try-taste-*"))) == 1


def test_here_leaves_the_work_to_the_caller(tmp_path):
    do(Engine(), [task("a")], tmp_path)
    assert done(tmp_path) == []


SCRIPT = """
import sys
from functools import partial
from pathlib import Path
from probe.engine import Engine, Task
from tests.engine import jobs
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    tasks = [Task(str(i), partial(jobs.mark, name=str(i), seconds=0.3)) for i in range(40)]
    with Engine("processes", 2).open(jobs.Bench(folder), folder) as workers:
        workers.run(tasks, name="tasks")
"""


PRINTS = """
import sys
from functools import partial
from pathlib import Path
from probe.engine import Engine, Task
from tests.engine import jobs
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with Engine("processes", 1).open(jobs.Bench(folder), folder) as workers:
        workers.run([Task("loud", partial(jobs.write_out, name="loud"))], name="tasks")
    print("{}")
"""


def test_workers_write_nothing_to_the_stdout_of_their_parent(tmp_path):
    file = tmp_path / "script.py"
    file.write_text(PRINTS)
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    command = [sys.executable, str(file), str(tmp_path)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout == "{}\n"
    assert all(line in ended.stderr for line in ("printed", "from a C library", "from a command"))


def test_workers_end_when_ctrl_c_is_pressed_twice(tmp_path):
    file = tmp_path / "script.py"
    file.write_text(SCRIPT.replace("seconds=0.3", "seconds=600"))
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    parent = subprocess.Popen([sys.executable, str(file), str(tmp_path)], env=environment, stderr=subprocess.DEVNULL)
    try:
        while len(begun := list(tmp_path.glob("begun-*"))) < 2:
            assert parent.poll() is None
            time.sleep(0.05)
        workers = [int(path.name.removeprefix("begun-")) for path in begun]
        parent.send_signal(signal.SIGINT)
        while all(os.path.exists(f"/proc/{worker}") for worker in workers) and parent.poll() is None:
            time.sleep(0.05)
        parent.send_signal(signal.SIGINT)
        assert parent.wait(timeout=120) != 0, "no worker may go on with its task"
    finally:
        parent.kill()
        parent.wait()


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    parent = subprocess.Popen([sys.executable, str(file), str(tmp_path)], env=environment)
    while len(done(tmp_path)) < 2:
        assert parent.poll() is None
        time.sleep(0.05)
    workers = [int(path.name.removeprefix("begun-")) for path in tmp_path.glob("begun-*")]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{worker}") for worker in workers):
        assert time.monotonic() < until, "a worker lives on"
        time.sleep(0.1)
    assert len(done(tmp_path)) < 40
