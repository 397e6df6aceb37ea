"""Shards: fixed items, one file each, the same on every engine."""

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from probe.engine import Shards
from probe.errors import ProbeError


def key() -> dict[str, int]:
    return {"numbers": 2}


def double(items):
    """Rows in another order than the items."""
    order = list(items)
    random.Random(len(order)).shuffle(order)
    for item in order:
        yield item, {"value": 2 * item}


def refused(_):
    pytest.fail("nothing to do")


def shards(folder: Path | None, work=double, n: int = 7, size: int = 3) -> Shards:
    return Shards(n, work, "numbers", key, folder, size=size)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("0000?.json")}


@given(st.integers(0, 40), st.integers(1, 12))
def test_every_item_is_in_one_shard_and_rows_come_in_order(n, size):
    work = shards(None, n=n, size=size)
    assert [item for number in range(len(work)) for item in work.items(number)] == list(range(n))
    assert work.rows()[0] == [{"value": 2 * item} for item in range(n)]


def test_only_missing_shards_are_made_and_all_seconds_count(tmp_path):
    rows, seconds = shards(tmp_path).rows()
    done = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*.done.json"))]
    assert seconds == sum(each["seconds"] for each in done)
    assert [each["engine"] for each in done] == ["here"] * 3
    (tmp_path / "00001.done.json").unlink()  # killed before it was written
    asked = []

    def again(items):
        asked.append(list(items))
        return double(items)

    assert shards(tmp_path).missing() == [1]
    assert shards(tmp_path, again).rows()[0] == rows
    assert asked == [[3, 4, 5]]
    assert shards(tmp_path, refused).rows()[0] == rows


def test_the_bytes_do_not_depend_on_who_made_a_shard_or_in_which_order(tmp_path):
    shards(tmp_path / "one").rows()
    for number in (2, 0, 1, 0):
        shards(tmp_path / "other").make(number, engine="ray")
    assert files(tmp_path / "one") == files(tmp_path / "other")
    assert len(files(tmp_path / "one")) == 3


def test_a_shard_that_fails_loses_itself_alone(tmp_path):
    def broken(items):
        yield from double(items[:1])
        if items[0] == 3:
            raise KeyboardInterrupt
        yield from double(items[1:])

    with pytest.raises(KeyboardInterrupt):
        shards(tmp_path, broken).rows()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.done.json", "00000.json", "key.json"]
    assert shards(tmp_path).missing() == [1, 2]


def test_a_changed_shard_is_named(tmp_path):
    shards(tmp_path).rows()
    (tmp_path / "00002.json").write_text('[{"value": 13}]\n')
    with pytest.raises(ProbeError, match=r"00002\.json is not the file that was written there; delete"):
        shards(tmp_path).rows()


def test_shards_of_another_key_are_refused(tmp_path):
    shards(tmp_path).rows()
    other = Shards(7, double, "numbers", lambda: {"numbers": 3}, tmp_path, size=3)
    for use in (other.rows, other.missing, lambda: other.make(0)):
        with pytest.raises(ProbeError, match="numbers: 2 there, 3 now"):
            use()


def test_whole_parts_of_an_earlier_version_are_read_and_others_refused(tmp_path):
    shards(tmp_path).rows()
    for path in tmp_path.glob("0*.json"):
        path.unlink()
    for start, end in ((3, 7), (0, 3)):
        rows = {str(item): {"value": 2 * item} for item in range(start, end)}
        (tmp_path / f"part-{start:06d}.json").write_text(json.dumps({"seconds": 1.5, "rows": rows}))
    rows, seconds = shards(tmp_path, refused).rows()
    assert [row["value"] for row in rows] == [0, 2, 4, 6, 8, 10, 12] and seconds == 3.0
    assert shards(tmp_path).missing() == []
    (tmp_path / "part-000003.json").unlink()
    with pytest.raises(ProbeError, match=r"earlier version, which kept 3 of 7 items .* remove it"):
        shards(tmp_path).rows()


def slow(items):
    for item in items:
        time.sleep(0.002)
        yield item, {"value": 2 * item}


def make_all(folder: Path) -> None:
    shards(folder, slow, n=40).rows()


def test_killed_ever_again_gives_the_bytes_of_one_that_was_never_killed(tmp_path):
    make_all(tmp_path / "whole")
    draw = random.Random(0)
    context = multiprocessing.get_context("fork")
    for _ in range(12):
        process = context.Process(target=make_all, args=(tmp_path / "killed",))
        process.start()
        process.join(draw.uniform(0.0, 0.06))
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
    make_all(tmp_path / "killed")
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_processes_that_make_the_same_shards_at_once_all_finish(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=make_all, args=(tmp_path / "shared",)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    make_all(tmp_path / "alone")
    assert files(tmp_path / "shared") == files(tmp_path / "alone")
