"""Interrupted work resumes, and its seconds add up over all calls."""

import json

import pytest

from probe.engine import in_stream


def key() -> dict[str, int]:
    return {"numbers": 2}


def test_only_missing_batches_are_done_and_all_seconds_count(tmp_path):
    done = []

    def double(missing):
        for item in missing:
            done.append(item)
            yield item, {"value": 2 * item}

    rows, seconds = in_stream(5, double, part=2, name="numbers", key=key, folder=tmp_path)
    assert [row["value"] for row in rows] == [0, 2, 4, 6, 8]
    assert done == [0, 1, 2, 3, 4]
    kept = sorted(tmp_path.glob("part-*.json"))
    assert seconds == sum(json.loads(path.read_text())["seconds"] for path in kept)

    kept[1].unlink()
    first = json.loads(kept[0].read_text())
    kept[0].write_text(json.dumps(first | {"seconds": 100.0}))
    again, seconds = in_stream(5, double, part=2, name="numbers", key=key, folder=tmp_path)
    assert again == rows
    assert done[5:] == [2, 3]
    assert seconds > 100


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows, seconds = in_stream(2, lambda missing: ((n, {"n": n}) for n in missing), part=5, name="numbers", key=key)
    assert rows == [{"n": 0}, {"n": 1}]
    assert seconds >= 0
    assert in_stream(0, lambda _: pytest.fail("nothing to do"), part=5, name="numbers", key=key) == ([], 0.0)
    assert not list(tmp_path.iterdir())


def test_rows_are_kept_as_they_get_done_and_given_in_order(tmp_path):
    """Interrupted after five of seven, with two parts of two on disk; then the rest is done, and no more."""
    order, done = [3, 0, 4, 6, 1, 2, 5], []

    def work(missing, until=7):
        for item in [item for item in order if item in missing][:until]:
            done.append(item)
            yield item, {"value": 2 * item}

    def broken(missing):
        yield from work(missing, 5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_stream(7, broken, part=2, name="numbers", key=key, folder=tmp_path)
    rows, _ = in_stream(7, work, part=2, name="numbers", key=key, folder=tmp_path)
    assert [row["value"] for row in rows] == [0, 2, 4, 6, 8, 10, 12]
    assert done == [3, 0, 4, 6, 1, 1, 2, 5]
    assert (
        in_stream(7, lambda _: pytest.fail("nothing to do"), part=2, name="numbers", key=key, folder=tmp_path)[0]
        == rows
    )
