"""A harvest that is killed outright, again and again, in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from probe.activations import Document, harvest
from probe.models import Model

SITES = ["resid_post.1", "z.2"]
SHARDS = 12

#: Each pass is slowed down, so that there is time to kill it.
SCRIPT = """
import sys, time, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[3])
from test_kill import SITES, documents
from probe.activations import harvest
from probe.models import load_model
model = load_model(sys.argv[1], device="cpu")
model.hf.register_forward_pre_hook(lambda *_: time.sleep(0.05))
harvest(model, documents(), SITES, folder=sys.argv[2], shard_traces=2)
"""


def documents() -> list[Document]:
    return [Document(tuple(range(5, 30 + n)), ((2, 9), (9, 25 + n))) for n in range(2 * SHARDS)]


def shards(folder: Path) -> int:
    """How many are finished; the manifest is never seen half written."""
    path = folder / "manifest.json"
    return len(json.loads(path.read_text())["shards"]) if path.exists() else 0


@pytest.mark.slow
def test_killed_is_never_killed(reader: Model, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    harvest(reader, documents(), SITES, folder=whole, shard_traces=2)
    path, here = reader.config.path, str(Path(__file__).parent)
    for more in (2, 3):
        before = shards(killed)
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, path, str(killed), here])
        while shards(killed) < before + more:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert before + more <= shards(killed) < SHARDS
    lost = shards(killed)
    times = {file.name: file.stat().st_mtime_ns for file in killed.glob("shard-*")}
    subprocess.run([sys.executable, "-c", SCRIPT, path, str(killed), here], check=True)
    assert sum(file.stat().st_mtime_ns == times.get(file.name) for file in killed.glob("shard-*")) >= lost
    assert sorted(file.name for file in killed.iterdir()) == sorted(file.name for file in whole.iterdir())
    for file in whole.iterdir():
        assert file.read_bytes() == (killed / file.name).read_bytes(), file.name
