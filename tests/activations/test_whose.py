"""A harvest belongs to one model by its weights, and to one process at a time."""

import json
import time
from pathlib import Path

import pytest
import torch

from probe.activations import harvest
from probe.errors import ProbeError
from probe.files import object_hash
from probe.models import Model, load_model
from tests.forked import Forked

TEXTS = ["Mia has 22 cards.", "Then she has 44.", "So: 44.", "One more."]
SITES = ["resid_post.1", "resid_post.2"]


def kept(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_other_weights_at_the_same_path_are_another_model(reader: Model, tiny_folder, tmp_path: Path) -> None:
    first = harvest(reader, TEXTS, SITES, folder=tmp_path, shard_traces=2)
    before = kept(tmp_path)
    other = load_model(tiny_folder("llama"), device="cpu")
    other.hf.get_submodule("model.layers.0.mlp.up_proj").weight.data[3, 5] += 0.5
    with pytest.raises(ProbeError, match=r"model\.weights differs"):
        harvest(other, TEXTS, SITES, folder=tmp_path, shard_traces=2)
    for change, said in (
        ({"outliers": None}, "outlier_multiple: 10.0"),
        ({"dtype": "bfloat16"}, "dtype"),
        ({}, "shard"),
    ):
        with pytest.raises(ProbeError, match=said):
            harvest(reader, TEXTS, SITES, folder=tmp_path, shard_traces=2 if change else 3, **change)
    assert kept(tmp_path) == before
    again = harvest(reader, TEXTS, SITES, folder=tmp_path, shard_traces=2, batch_tokens=16)
    assert torch.equal(again.vectors[SITES[0]], first.vectors[SITES[0]])


def of_earlier_version(folder: Path, model: Model, names: list[str]) -> None:
    """Take the key away, and name the harvest as versions did that knew a model by its path."""
    from probe.activations import documents_of

    (folder / "key.json").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    fields = ("model", "path", "revision", "model_dtype", "unit", "dtype", "outlier_multiple", "shard_traces")
    told = {name: manifest[name] for name in fields}
    documents = [object_hash(vars(each)) for each in documents_of(model, TEXTS)]
    key = object_hash({**told, "sites": names, "documents": documents})
    (folder / "manifest.json").write_text(json.dumps(manifest | {"key": key}))


def test_a_harvest_of_an_earlier_version_is_known_by_its_first_rows(reader: Model, tiny_folder, tmp_path: Path) -> None:
    first = harvest(reader, TEXTS, SITES, folder=tmp_path, shard_traces=2)
    of_earlier_version(tmp_path, reader, SITES)
    other = load_model(tiny_folder("llama"), device="cpu")
    other.hf.get_input_embeddings().weight.data += 0.1
    with pytest.raises(ProbeError, match="earlier version"):
        harvest(other, TEXTS, SITES, folder=tmp_path, shard_traces=2)
    with pytest.raises(ProbeError, match="earlier version"):
        harvest(reader, TEXTS[:2], SITES, folder=tmp_path, shard_traces=2)
    (tmp_path / "shard-00001.safetensors").unlink()
    again = harvest(reader, TEXTS, SITES, folder=tmp_path, shard_traces=2)
    assert torch.equal(again.vectors[SITES[1]], first.vectors[SITES[1]])
    assert json.loads((tmp_path / "key.json").read_text())["key"]["work"] == "harvest"


ITEMS = [list(range(5, 15 + n)) for n in range(8)]


def slowly(path: str, folder: Path, begin: Path) -> None:
    """Harvest when ``begin`` is there, so slowly that two of these meet."""
    model = load_model(path, device="cpu")
    print("ready", flush=True)  # noqa: T201
    while not begin.exists():
        time.sleep(0.01)
    model.hf.register_forward_pre_hook(lambda *_: time.sleep(0.2))
    try:
        harvest(model, ITEMS, "resid_post.1", folder=folder, shard_traces=1)
        print("done")  # noqa: T201
    except ProbeError as error:
        print(error)  # noqa: T201


@pytest.mark.slow
def test_of_two_processes_one_is_refused_and_no_shard_is_lost(reader: Model, tmp_path: Path) -> None:
    two = [Forked(slowly, reader.config.path, tmp_path / "both", tmp_path / "begin") for _ in range(2)]
    for each in two:
        each.wait_for(lambda each=each: "ready" in each.stdout)
    (tmp_path / "begin").touch()
    assert [each.wait(300) for each in two] == [0, 0]
    said = [each.stdout.removeprefix("ready\n") for each in two]
    refused, done = sorted(said, key=lambda text: text == "done\n")
    assert done == "done\n" and "is being written by process" in refused and refused.count("\n") == 1
    whole = harvest(reader, ITEMS, "resid_post.1")
    both = harvest(reader, ITEMS, "resid_post.1", folder=tmp_path / "both", shard_traces=1)
    torch.testing.assert_close(both.vectors["resid_post.1"], whole.vectors["resid_post.1"], atol=1e-5, rtol=1e-5)
