"""A harvest that is killed outright, again and again, in a process of its own."""

import json
import time
from pathlib import Path

import pytest

from probe.activations import Document, harvest
from probe.models import Model, load_model
from tests.forked import Forked, done

SITES = ["resid_post.1", "z.2"]
SHARDS = 12


def documents() -> list[Document]:
    return [Document(tuple(range(5, 30 + n)), ((2, 9), (9, 25 + n))) for n in range(2 * SHARDS)]


def shards(folder: Path) -> int:
    """How many are finished; the manifest is never seen half written."""
    path = folder / "manifest.json"
    return len(json.loads(path.read_text())["shards"]) if path.exists() else 0


def slowly(path: str, folder: Path) -> None:
    """Harvest so slowly that there is time to kill it."""
    model = load_model(path, device="cpu")
    model.hf.register_forward_pre_hook(lambda *_: time.sleep(0.05))
    harvest(model, documents(), SITES, folder=folder, shard_traces=2)


@pytest.mark.slow
def test_killed_is_never_killed(reader: Model, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    harvest(reader, documents(), SITES, folder=whole, shard_traces=2)
    path = reader.config.path
    for more in (2, 3):
        before = shards(killed)
        process = Forked(slowly, path, killed)
        process.wait_for(lambda wanted=before + more: shards(killed) >= wanted)
        process.kill()
        assert before + more <= shards(killed) < SHARDS
    lost = shards(killed)
    times = {file.name: file.stat().st_mtime_ns for file in killed.glob("shard-*")}
    done(slowly, path, killed)
    assert sum(file.stat().st_mtime_ns == times.get(file.name) for file in killed.glob("shard-*")) >= lost
    assert sorted(file.name for file in killed.iterdir()) == sorted(file.name for file in whole.iterdir())
    for file in whole.iterdir():
        assert file.read_bytes() == (killed / file.name).read_bytes(), file.name
