"""Ray: a real cluster of three machines, which are lost and join while a run is made."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from probe.engine import Engine, Task
from probe.errors import ProbeError
from tests.engine import jobs
from tests.pipeline import kills

pytestmark = pytest.mark.slow

SMALL = kills.SMALL | {
    "sizes": {"train": 258, "validation": 4, "test": 258},
    "hybrid": {"arms": ["hybrid", "oracle-free", "single-vector"]},
}


@pytest.fixture(scope="module")
def cluster():
    """A head without cores, and three machines with one core each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("PYTHONPATH", os.getcwd())
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONWARNINGS", "ignore")
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(3):
            made.add_node(num_cpus=1)
        yield made
        made.shutdown()


def command(file: Path, out: Path, *more: str) -> list[str]:
    """The command of a run, in a new Python: a driver of Ray that was forked did not get to its first shard."""
    script = "from probe.cli import main; main()"
    return [sys.executable, "-c", script, *kills.arguments(file, out, *more)]


def wait_for(out, pattern, driver) -> None:
    """Wait until a process has made a file."""
    until = time.monotonic() + 300
    while not list(out.glob(pattern)):
        if driver.poll() is not None or time.monotonic() > until:
            driver.kill()
            raise AssertionError(driver.stderr.read()[-2000:] or f"no {pattern} after five minutes")
        time.sleep(0.05)


@pytest.mark.long
def test_machines_are_lost_and_join_and_the_files_are_those_of_one_process(cluster, tmp_path):
    """A machine is killed without notice in each of three stages, another joins; then the driver is killed."""
    file, here, out = tmp_path / "run.yaml", tmp_path / "here", tmp_path / "ray"
    file.write_text(json.dumps(SMALL))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    subprocess.run(command(file, here), check=True, **quiet)
    engine = ("--engine", f"ray:{cluster.address}")
    with subprocess.Popen(command(file, out, *engine), **quiet) as driver:
        for stage in ("traces/train/*.done.json", "arms/hybrid/*.done.json", "arms/single-vector/*.done.json"):
            wait_for(out, stage, driver)
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
            cluster.add_node(num_cpus=1, wait=False)
        _, said = driver.communicate(timeout=300)
    assert driver.returncode == 0, said[-2000:]
    assert kills.files(out) == kills.files(here)
    engines = {json.loads(path.read_text())["engine"] for path in out.rglob("*.done.json")}
    assert engines == {"ray"}, "the driver made no shard itself"

    shutil.rmtree(out / "arms")
    with subprocess.Popen(command(file, out, *engine), **quiet) as driver:
        wait_for(out, "arms/hybrid/*.done.json", driver)
        driver.kill()
    subprocess.run(command(file, out, "--engine", "here"), check=True, **quiet)
    assert kills.files(out) == kills.files(here)


def test_idle_actors_that_died_cost_a_task_nothing_and_a_broken_one_is_replaced(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("probe.engine.tasks._LOSSES", 2)
    engine, tasks = Engine("ray", address=cluster.address), [Task("x", jobs.task_of(jobs.mark, "x", seconds=0.5))]
    with engine.open(jobs.Bench(tmp_path), tmp_path) as workers:
        until = time.monotonic() + 120
        while len(begun := list(tmp_path.glob("begun-*"))) < 3:
            assert time.monotonic() < until, "fewer than three actors"
            workers.run([replace(tasks[0], name=str(i)) for i in range(3)], name="tasks")
        for path in begun:
            os.kill(int(path.name.removeprefix("begun-")), signal.SIGKILL)
        workers.run(tasks, name="tasks")
        names = ["a", "b", "c", "d"]
        whole = [Task(each, jobs.task_of(jobs.mark_unless_broken, each)) for each in names]
        workers.run([Task("broken", jobs.task_of(jobs.break_once, "broken")), *whole], name="tasks")
    assert {path.name for path in tmp_path.glob("done-*")} == {f"done-{each}" for each in ("x", "broken", *names)}


def test_an_error_of_a_task_is_tried_three_times_and_a_mistake_once(cluster, tmp_path):
    engine = Engine("ray", address=cluster.address)
    tasks = [Task(name, jobs.task_of(do, name)) for name, do in (("hopeless", jobs.fail), ("fine", jobs.mark))]
    said = r"1 of 2 tasks are unfinished, first hopeless \(ValueError: in try 2\)"
    with pytest.raises(ProbeError, match=said), engine.open(jobs.Bench(tmp_path), tmp_path) as workers:
        workers.run(tasks, name="tasks")
    assert len(list(tmp_path.glob("try-hopeless-*"))) == 3
    assert (tmp_path / "done-fine").exists()
    tasks, said = [Task("taste", jobs.task_of(jobs.refuse, "taste"))], r"^taste is wrong; write it otherwise$"
    with pytest.raises(ProbeError, match=said), engine.open(jobs.Bench(tmp_path), tmp_path) as workers:
        workers.run(tasks, name="tasks")
