"""Samples that share one cached text are those of separate decoding, token by token."""

import random

import pytest

import probe
from probe.hooks import TokenForwards, can_branch
from probe.models import Sampling
from probe.traces import sample_branches, sample_each

_FULL, _WINDOW, _CHUNKS, _STATE = "llama", "gemma3", "llama4", "qwen3_5"


def tree(model, trunk, prompts, samples, limit, **how):
    found = [[None] * samples for _ in prompts]
    for prompt, number, tokens, _ in sample_branches(model, trunk, prompts, samples, limit, **how):
        assert found[prompt][number] is None
        found[prompt][number] = tokens
    return found


def scene(model, length=40, seed=0):
    """A text, and prompts: its beginnings, one twice, one with other tokens after it, and one that shares nothing."""
    rng = random.Random(seed)
    ids = [i for i in range(3, len(model.tokenizer)) if i not in model.eos_ids]
    trunk = [rng.choice(ids) for _ in range(length)]
    other = [next(i for i in ids if i != trunk[15]), *rng.choices(ids, k=4)]
    alone = [next(i for i in ids if i != trunk[0]), *rng.choices(ids, k=20)]
    return trunk, [trunk[:3], trunk[:20], trunk[:20], trunk, [*trunk[:15], *other], alone]


@pytest.mark.parametrize("arch", [_FULL, _WINDOW, _CHUNKS, "gpt2", _STATE])
def test_cut_caches_change_no_token(tiny_folder, arch):
    model = probe.load_model(tiny_folder(arch), device="cpu")
    trunk, prompts = scene(model)
    spent = TokenForwards()
    for how in ({"sampling": Sampling(temperature=1.2, top_p=0.9)}, {"sampling": Sampling()}):
        plain = sample_each(model, prompts, 5, 24, seed=1, **how)
        assert tree(model, trunk, prompts, 5, 24, seed=1, spent=spent, **how) == plain
        assert tree(model, trunk, prompts, 5, 24, seed=1, slots=3, **how) == plain
    again = sum(map(len, prompts))
    assert can_branch(model) == (arch != _STATE)
    assert spent.prefix == 2 * again if arch == _STATE else spent.prefix < 2 * again
