from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from probe.activations import ActivationStore, Rows, SentenceActivations, harvest
from probe.errors import ProbeError
from probe.models import Model
from probe.traces import Traces

SITES = ["resid_post.1", "mlp_post.2"]
SITE = SITES[0]


@pytest.fixture
def store(reader: Model, story_traces: Callable[[Model, int], Traces], tmp_path: Path) -> ActivationStore:
    return harvest(
        reader, story_traces(reader, 9), SITES, unit="token", folder=tmp_path, dtype="bfloat16", shard_traces=4
    )


def mapped_file(tensor: torch.Tensor) -> str:
    """The file that a tensor's memory is a view of."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(edge, 16) for edge in line.split()[0].split("-"))
        if start <= tensor.data_ptr() < end:
            return line.split(maxsplit=5)[-1]
    raise AssertionError("no such memory")


def test_what_it_is(store: ActivationStore) -> None:
    assert store.sites == tuple(SITES) and store.unit == "token" and store.model_name == "llama-words-0"
    assert store.shape(SITE) == (len(store), 32) and store.shape("mlp_post.2") == (len(store), 64)
    assert store.index.column_names[:6] == ["document", "span", "start", "end", "name", "text"]
    assert len(store.index.to_pandas()) == len(store) > 300
    assert f"{len(store)} tokens at resid_post.1, mlp_post.2" in repr(store)
    html = store._repr_html_()
    assert "median norm" in html and f"{len(store)} × 64" in html and "at position 0" in html and "kB" in html
    with pytest.raises(ProbeError, match=r"resid_post\.2 was not harvested into .*; harvested: resid_post\.1, mlp_"):
        store["resid_post.2"]
    with pytest.raises(ProbeError, match="was not harvested"):
        store.dataset("resid_post.2")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of mapped files")
def test_it_is_mapped_not_read(store: ActivationStore) -> None:
    rows = ActivationStore.open(store.folder)[SITE]
    assert [Path(mapped_file(part)).name for part in rows.parts] == [f"shard-0000{i}.safetensors" for i in range(3)]
    assert mapped_file(rows[2:5]) == mapped_file(rows.parts[0]), "a slice within a shard copies nothing"
    assert mapped_file(rows.tensor()) != mapped_file(rows.parts[0])


def test_writing_to_a_mapped_tensor_leaves_the_file_alone(store: ActivationStore) -> None:
    store[SITE][0:5].zero_()
    assert ActivationStore.open(store.folder)[SITE][0:5].any()


SLICES = [(None, None, None), (1, 3, None), (2, 7, None), (4, 4, None), (None, None, 3), (6, 1, -2), (-3, None, None)]
CHOSEN = [torch.tensor([5, 2]), torch.tensor([-1, 3, -8, 3]), torch.arange(8) % 3 == 0]


@pytest.mark.parametrize("at", [0, -1, 7, *(slice(*each) for each in SLICES), [], [7, 0, 3], *CHOSEN])
def test_rows_are_as_one_tensor(at) -> None:
    whole = torch.randn(8, 4)
    rows = Rows([whole[:3], whole[3:3], whole[3:7], whole[7:]])
    expected = whole[list(range(8))[at] if isinstance(at, slice) else at]  # torch has no steps backwards
    assert torch.equal(rows[at], expected)
    assert torch.equal(rows.tensor(), whole) and rows.shape == (8, 4) and "8 × 4" in repr(rows)


def test_there_is_no_such_row() -> None:
    rows = Rows([torch.zeros(2, 3), torch.zeros(1, 3)])
    for at in (3, -4, torch.tensor([0, 3])):
        with pytest.raises(IndexError, match="only 3 rows"):
            rows[at]
    with pytest.raises(IndexError, match="does not fit"):
        rows[torch.tensor([True])]


def test_the_dataset_and_its_loader(store: ActivationStore) -> None:
    dataset = store.dataset(SITE)
    assert len(dataset) == len(store) and dataset[3].dtype == torch.float32
    loader = DataLoader(dataset, batch_size=50)
    assert torch.equal(torch.cat(list(loader)), store[SITE].tensor().float())
    shuffled = torch.cat(list(DataLoader(dataset, batch_size=50, shuffle=True)))
    torch.testing.assert_close(shuffled.sum(0), store[SITE].tensor().float().sum(0), rtol=1e-3, atol=1e-3)


def test_batches_are_shuffled_and_without_end(store: ActivationStore) -> None:
    n = len(store)
    rows = torch.cat(list(islice(store.batches(SITE, n // 4, seed=0), 9)))
    assert rows.shape == (n // 4 * 9, 32) and rows.dtype == torch.float32
    every = store[SITE].tensor().float()
    for round_ in (rows[:n], rows[n : 2 * n]):
        assert torch.equal(round_.sort(0).values, every.sort(0).values), "each row once a round"
    assert not torch.equal(rows[:n], every) and not torch.equal(rows[:n], rows[n : 2 * n])
    again = torch.cat(list(islice(store.batches(SITE, n // 4, seed=0), 9)))
    assert torch.equal(rows, again) and not torch.equal(rows[:5], next(store.batches(SITE, 5, seed=1)))
    assert next(store.batches(SITE, 3 * n, seed=0)).shape == (3 * n, 32)


def test_saelens_trains_on_it(store: ActivationStore) -> None:
    from sae_lens import LoggingConfig, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    def unexplained() -> float:
        x = store[SITE].tensor().float()
        with torch.no_grad():
            return float((sae(x) - x).pow(2).sum() / (x - x.mean(0)).pow(2).sum())

    torch.manual_seed(0)
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=store.shape(SITE)[1], d_sae=24, k=4))
    config = SAETrainerConfig(
        total_training_samples=60 * 64,
        train_batch_size_samples=64,
        lr=1e-2,
        lr_end=1e-3,
        logger=LoggingConfig(log_to_wandb=False),
    )
    before = unexplained()
    SAETrainer(config, sae, data_provider=store.batches(SITE, 64, seed=0)).fit()
    assert unexplained() < 0.7 * before


@pytest.mark.parametrize("name", ["shard-00001.safetensors", "index.parquet"])
@pytest.mark.parametrize("harm", ["cut", "altered", "deleted"])
def test_damage_is_told_in_one_line(store: ActivationStore, name: str, harm: str) -> None:
    path = store.folder / name
    data = path.read_bytes()
    path.unlink()  # a new file: the one that is mapped stays as it was
    if harm != "deleted":
        path.write_bytes(data[:-100] if harm == "cut" else data[:-9] + bytes([data[-9] ^ 4]) + data[-8:])
    with pytest.raises(ProbeError, match=f"{name} is missing or damaged; harvest into .* again") as error:
        ActivationStore.open(store.folder)
    assert "\n" not in str(error.value)


def test_sentences_of_a_store(reader: Model, story_traces: Callable[[Model, int], Traces], tmp_path: Path) -> None:
    got = harvest(reader, story_traces(reader, 5), SITES, folder=tmp_path, shard_traces=2)
    store = ActivationStore.open(tmp_path)
    assert torch.equal(store["mlp_post.2"].tensor(), got.vectors["mlp_post.2"])
    assert SentenceActivations.of(store).index == got.index and store.outliers == got.outliers
    assert store.index["name"].to_pylist() == [str(document) for document, _ in got.index]


def test_nothing_to_train_on(reader: Model, tmp_path: Path) -> None:
    store = harvest(reader, [[]], SITE, unit="token", folder=tmp_path)
    assert len(store) == 0 and store.shape(SITE) == (0, 32) and len(store.dataset(SITE)) == 0
    with pytest.raises(ProbeError, match="nothing to train on"):
        store.batches(SITE, 4, seed=0)
