"""Ids without a row in the embedding, and positions beyond the table, are refused before a model runs."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from probe.activations import harvest
from probe.circuits import EdgeLens, direct_attribution
from probe.errors import ProbeError
from probe.hooks import capture, edit, force
from probe.models import Model, load_model
from probe.problems import Problem, ProblemSet
from probe.traces import decode_greedy, generate_traces, sample_texts


@pytest.fixture(scope="module")
def short(letters) -> Model:
    """GPT-2 with a table of 16 positions."""
    config = GPT2Config(
        n_embd=32, n_layer=4, n_head=4, n_positions=16, vocab_size=len(letters), bos_token_id=0, eos_token_id=1
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Model(AutoModelForCausalLM.from_config(config), letters, name="short")


PROMPT = [70] * 10


@pytest.mark.parametrize(
    "run",
    {
        "decode": lambda model: decode_greedy(model, [[70], PROMPT], 7),
        "sample_texts": lambda model: sample_texts(model, [[70], PROMPT], 1, 7),
        "force": lambda model: force(model, [PROMPT], [[70] * 7]),
        "harvest": lambda model: harvest(model, ["Short.", "A text of many letters."], "resid_post.1"),
        "capture": lambda model: _captured(model, torch.full((1, 17), 70)),
        "edit": lambda model: _edited(model, torch.full((1, 17), 70)),
        "traces": lambda model: generate_traces(model, _PROBLEMS, _PROBLEMS.take("test"), max_new_tokens=13),
    }.items(),
    ids=lambda item: item[0],
)
def test_more_tokens_than_positions_are_refused(short, run, monkeypatch):
    monkeypatch.setattr(short.hf.transformer.h[0], "forward", lambda *_, **__: pytest.fail("a block ran"))
    with pytest.raises(ProbeError, match="has 16 positions: no room for a"):
        run[1](short)


_PROBLEMS = ProblemSet("p", "numeric", {"test": (Problem("a", "One?", "1"), Problem("b", "Two?", "2"))})


def _captured(model, ids):
    with capture(model, "resid_post.1"):
        model.hf(ids)


def _edited(model, ids):
    with edit(model, {"resid_post.1": lambda state: state}):
        model.hf(ids)


def test_the_whole_table_can_be_used(short):
    (emission,) = decode_greedy(short, [PROMPT], 6)
    ended = short.hf.generate(torch.tensor([PROMPT]), max_new_tokens=6, do_sample=False, pad_token_id=0)
    assert list(emission.tokens) == [token for token in ended[0, 10:].tolist() if token not in short.eos_ids]
    mask = torch.tensor([[0] * 4 + [1] * 16])  # padding needs no position
    with capture(short, "resid_post.1") as acts:
        short.hf(torch.full((1, 20), 70), attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0))
    assert acts["resid_post.1"].shape == (1, 20, 32)


@pytest.mark.parametrize("wrong", [-1, 10**6])
def test_ids_that_a_model_does_not_know_are_refused(tiny_folder, wrong):
    model = load_model(tiny_folder("llama", "letters"), device="cpu")
    said = f"token id {wrong}"
    for run in (
        lambda: decode_greedy(model, [[5], [5, wrong]], 3),
        lambda: harvest(model, [[5, 6], [wrong]], "resid_post.1"),
        lambda: force(model, [[5]], [[wrong]]),
        lambda: _captured(model, torch.tensor([[5, wrong]])),
        lambda: model.decode([5, wrong]),
    ):
        with pytest.raises(ProbeError, match=said):
            run()
    lens, ids = EdgeLens(model), torch.tensor([[5, 6]])
    with pytest.raises(ProbeError, match=said):
        direct_attribution(lens, ids, torch.tensor([wrong]), torch.tensor([5]))


def test_an_added_token_without_a_row_is_refused_only_where_a_text_has_it(tiny_folder, letters, tmp_path):
    folder = shutil.copytree(tiny_folder("llama", "letters"), tmp_path / "model")
    tokenizer = type(letters).from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]", "additional_special_tokens": ["<tool>"]})
    tokenizer.save_pretrained(folder)
    model = load_model(folder, device="cpu")
    assert 0 <= model.pad_id < len(letters)
    alone = [decode_greedy(model, [prompt], 3)[0] for prompt in ([5, 6, 7], [8])]
    assert decode_greedy(model, [[5, 6, 7], [8]], 3) == alone
    with pytest.raises(ProbeError, match=f"cannot read token id {len(letters) + 1}"):
        decode_greedy(model, [model.prompt_ids("a<tool>b")], 3)


@pytest.mark.parametrize("pad", [-1, 260, 10**9])
def test_a_padding_id_without_a_row_is_forgotten(tiny_folder, tmp_path, pad):
    folder = shutil.copytree(tiny_folder("qwen2", "letters"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": pad}))
    model, plain = load_model(folder, device="cpu"), load_model(tiny_folder("qwen2", "letters"), device="cpu")
    assert model.hf.config.pad_token_id is None
    assert decode_greedy(model, [[5, 6, 7], [8]], 3) == decode_greedy(plain, [[5, 6, 7], [8]], 3)


def test_an_end_token_without_a_row_ends_nothing(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder("llama", "letters"), tmp_path / "model")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [5000, 1]}))
    assert load_model(folder, device="cpu").eos_ids == (1,)
