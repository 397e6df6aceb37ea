"""A folder of kept work knows whose it is, and has one writer."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from probe.engine import PARTS, FolderLock, KeptFolder, Shards
from probe.errors import ProbeError

HOLD = """
import sys, time
from probe.engine import FolderLock
with FolderLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def key(**more: object) -> dict[str, object]:
    return {"model": {"weights": "0" * 64, "dtype": "float32"}, "max_new_tokens": 6, **more}


def rows(folder: Path, asked: dict[str, object] | None = None, n: int = 3) -> list[dict[str, int]]:
    """Rows that say by which call they were made."""

    def work(items):
        return ((item, {"item": item}) for item in items)

    return Shards(n, work, "rows", lambda: asked or key(), folder, 2).rows()[0]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (key(max_new_tokens=12), "max_new_tokens: 6 there, 12 now"),
        (key(model={"weights": "1" * 64, "dtype": "float32"}), "model.weights differs"),
        (key(model={"weights": "0" * 64, "dtype": "float16"}), "model.dtype: 'float32' there, 'float16' now"),
        (key(adapter="a"), "adapter: None there, 'a' now"),
    ],
)
def test_rows_of_another_key_are_refused_and_the_difference_is_named(tmp_path, other, said):
    before = rows(tmp_path)
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ProbeError, match=said) as raised:
        rows(tmp_path, other)
    assert "\n" not in str(raised.value)
    with pytest.raises(ProbeError, match=said):  # also where more is asked for
        rows(tmp_path, other, n=9)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == kept
    assert rows(tmp_path) == before


def test_work_without_a_key_is_refused(tmp_path):
    rows(tmp_path / "traces")
    (tmp_path / "traces" / "key.json").unlink()
    with pytest.raises(ProbeError, match=r"earlier version.*remove it, or name another folder"):
        rows(tmp_path / "traces")


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": 1}', "{", '{"format": 9, "key": {}}'])
def test_a_damaged_key_is_refused_in_a_line(tmp_path, text):
    rows(tmp_path)
    (tmp_path / "key.json").write_text(text)
    with pytest.raises(ProbeError, match=r"key\.json"):
        rows(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"key": "x", "sha256": 1, "seconds": 1}', '{"seconds": 1}'])
def test_a_damaged_done_file_is_named_with_what_to_do(tmp_path, text):
    rows(tmp_path)
    done = tmp_path / "00000.done.json"
    done.write_text(text)
    with pytest.raises(ProbeError, match=f"{done.name}.*; delete the file and run the command again"):
        rows(tmp_path)


def test_a_request_that_fails_at_once_keeps_nothing_and_no_folder(tmp_path):
    def refused(_):
        raise ProbeError("no room")
        yield

    home = tmp_path / "deep" / "rows"
    with pytest.raises(ProbeError, match="no room"):
        Shards(3, refused, "rows", key, home, 2).rows()
    assert not home.exists()
    assert rows(home, key(max_new_tokens=12)) == rows(home, key(max_new_tokens=12))


def test_the_second_writer_is_refused_and_a_killed_one_blocks_nobody(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        said = f"written by process {process.pid} on {socket.gethostname()}; wait until it ends"
        with pytest.raises(ProbeError, match=said):
            rows(tmp_path)
        with pytest.raises(ProbeError, match=said), KeptFolder(tmp_path, key(), PARTS):
            pass
        os.kill(process.pid, signal.SIGKILL)
    assert (tmp_path / ".lock").exists(), "the file of a killed process stays, and is not what locks"
    assert len(rows(tmp_path)) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("00000.done.json", "00000.json", "00001.done.json", "00001.json", "key.json")
    ]


def test_a_lock_may_be_taken_again_by_its_holder_and_by_no_other(tmp_path):
    lock = FolderLock(tmp_path / "new")
    with lock:
        with lock:
            pass
        with pytest.raises(ProbeError, match=f"process {os.getpid()}"), FolderLock(tmp_path / "new"):
            pass
    with FolderLock(tmp_path / "new"):
        pass


def test_reading_what_is_finished_needs_no_lock(tmp_path):
    rows(tmp_path)
    with FolderLock(tmp_path):
        assert len(rows(tmp_path)) == 3


@pytest.mark.parametrize("place", ["file", "file/below", "n" * 300, "file/x/y"])
def test_a_folder_that_cannot_be_is_named(tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(ProbeError, match=r"is a file; name a folder|cannot be written") as raised:
        rows(tmp_path / place)
    assert str(tmp_path / place) in str(raised.value) and "\n" not in str(raised.value)


def test_a_full_disk_is_named_and_what_was_kept_stays(tmp_path):
    """A limit on the size of files stands for a full disk: the second part is too large for it."""
    script = """
import resource, signal, sys
from probe.engine import Shards
from probe.errors import ProbeError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
def work(missing):
    for item in missing:
        yield item, {"text": "x" * (10 if item < 2 else 9000)}
try:
    Shards(4, work, "rows", lambda: {"a": 1}, sys.argv[1], 2).rows()
except ProbeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{tmp_path}/00001.json cannot be written (File too large); free some space")
    assert done.stdout.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.done.json", "00000.json", "key.json"]
    assert len(json.loads((tmp_path / "00000.json").read_text())) == 2
