"""Samples that share one cached text are those of separate decoding, token by token."""

import random
from collections import Counter

import pytest
import torch

import probe
from probe.hooks import Branches, TokenForwards, can_branch
from probe.models import Model, Sampling
from probe.traces import sample_branches, sample_each

WARM = Sampling(temperature=1.2, top_p=0.9)
LIMIT = 10


def tree(model, trunk, prompts, samples, **how):
    found = [[None] * samples for _ in prompts]
    for prompt, number, tokens, _ in sample_branches(
        model, trunk, prompts, samples, LIMIT, **{"sampling": WARM, **how}
    ):
        assert found[prompt][number] is None
        found[prompt][number] = tokens
    return found


def scene(model: Model) -> tuple[list[int], list[list[int]]]:
    """A text, and prompts: its beginnings, one twice, one with other tokens after it, and one that shares nothing."""
    rng = random.Random(0)
    ids = [i for i in range(3, len(model.tokenizer)) if i not in model.eos_ids]
    trunk = [rng.choice(ids) for _ in range(30)]
    other = [next(i for i in ids if i != trunk[15]), *rng.choices(ids, k=4)]
    alone = [next(i for i in ids if i != trunk[0]), *rng.choices(ids, k=20)]
    return trunk, [trunk[:3], trunk[:20], trunk[:20], trunk, [*trunk[:15], *other], alone]


@pytest.mark.parametrize("arch", ["llama", "gpt2", "gemma3", "llama4", "qwen3_5"])
def test_cut_caches_change_no_token(tiny_folder, arch):
    """Windows of 8 and chunks of 8 tokens are shorter than the text; qwen3_5 has states, which cannot be cut."""
    model = probe.load_model(tiny_folder(arch), device="cpu")
    trunk, prompts = scene(model)
    spent = TokenForwards()
    plain = sample_each(model, prompts, 4, LIMIT, seed=1, sampling=WARM)
    assert tree(model, trunk, prompts, 4, seed=1, spent=spent, slots=5) == plain
    assert len({tuple(tokens) for some in plain for tokens in some}) > 12, "the samples differ"
    assert can_branch(model) == (arch != "qwen3_5")
    assert (spent.prefix == sum(map(len, prompts))) == (arch == "qwen3_5")
    assert spent.prefix >= len(trunk) and spent.decoded > 0


@pytest.fixture(scope="module")
def llama(tiny_folder) -> Model:
    return probe.load_model(tiny_folder("llama"), device="cpu")


def test_greedy_is_the_text_itself_and_runs_nothing_twice(llama):
    (text,) = sample_each(llama, [[5, 6, 7]], 1, 12, sampling=Sampling())
    trunk, spent = [5, 6, 7, *text[0]], TokenForwards()
    found = tree(llama, trunk, [trunk[:3], trunk[:5]], 3, sampling=Sampling(), spent=spent)
    assert found == [[text[0][:LIMIT]] * 3, [text[0][2 : 2 + LIMIT]] * 3]
    assert spent.total == len(trunk), "all samples say what the text says"


@pytest.mark.parametrize(
    ("what", "at"),
    [("step", 4), ("admit", 1), ("admit", 2), ("admit", 3), ("copy", 3), ("pack", 3), ("_run", 1), ("_run_last", 1)],
)
def test_running_out_of_memory_loses_no_sample(llama, monkeypatch, what, at):
    """``tree`` asserts that every sample arrives once."""
    trunk, prompts = scene(llama)
    plain, calls, works = tree(llama, trunk, prompts, 4, slots=6), [], getattr(Branches, what)

    def fails(self, *given, **how):
        calls.append(1)
        if len(calls) == at:
            raise torch.OutOfMemoryError("out of memory")
        return works(self, *given, **how)

    monkeypatch.setattr(Branches, what, fails)
    assert tree(llama, trunk, prompts, 4, slots=6) == plain and len(calls) > at


def test_after_memory_ran_out_no_more_rows_are_decoded_than_half(llama, monkeypatch):
    trunk, prompts = scene(llama)
    widths, step = [], Branches.step

    def fails(self, rows, tokens):
        widths.append((len(rows), len(self._rows.begin)))
        if len(widths) == 2:
            raise torch.OutOfMemoryError("out of memory")
        return step(self, rows, tokens)

    monkeypatch.setattr(Branches, "step", fails)
    assert all(None not in some for some in tree(llama, trunk, prompts, 12, slots=8))
    assert max(rows for rows, _ in widths[2:]) == 4, "entries in the queue are divided too"
    assert max(places for _, places in widths[2:]) == 4, "the cache has no more places than there may be rows"


def likely(model: Model) -> tuple[list[int], list[list[int]]]:
    """A text that the model writes itself, so that samples follow it, and places in it."""
    (((text,),)) = sample_each(model, [[5, 6, 7]], 1, 16, sampling=Sampling(temperature=0.3))
    trunk = [5, 6, 7, *text]
    return trunk, [trunk[:n] for n in (3, 4, 6, 9)]


def test_a_reused_sample_is_the_rest_of_one_that_began_earlier(llama):
    trunk, prompts = likely(llama)
    cool = Sampling(temperature=0.4)
    own = sample_each(llama, prompts, 6, 2 * LIMIT, sampling=cool)
    found = tree(llama, trunk, prompts, 6, sampling=cool, reuse=True)
    reused = 0
    for i, prompt in enumerate(prompts):
        there = Counter(tuple(tokens[:LIMIT]) for tokens in own[i])
        for earlier, some in zip(prompts[:i], own, strict=False):
            gap = len(prompt) - len(earlier)
            there.update(tuple(t[gap : gap + LIMIT]) for t in some if t[:gap] == prompt[len(earlier) :])
        assert not Counter(map(tuple, found[i])) - there
        reused += found[i] != [tokens[:LIMIT] for tokens in own[i]]
    assert reused


@pytest.mark.parametrize("reuse", [False, True])
def test_places_that_are_skipped_change_no_other(llama, reuse):
    trunk, prompts = likely(llama)
    whole = tree(llama, trunk, prompts, 5, sampling=Sampling(temperature=0.5), reuse=reuse)
    some = tree(llama, trunk, prompts, 5, sampling=Sampling(temperature=0.5), reuse=reuse, skip={0, 2})
    assert some[0] == some[2] == [None] * 5 and (some[1], some[3]) == (whole[1], whole[3])


def test_in_bfloat16_nearly_all_first_tokens_are_the_same(tiny_folder):
    """One that differs by rounding makes the rest of its sample differ."""
    model = probe.load_model(tiny_folder("llama"), device="cpu", dtype="bfloat16")
    trunk, prompts = scene(model)
    plain, found = sample_each(model, prompts, 20, LIMIT, sampling=WARM), tree(model, trunk, prompts, 20)
    same = [
        a[:1] == b[:1] for some, others in zip(plain, found, strict=True) for a, b in zip(some, others, strict=True)
    ]
    assert sum(same) >= 0.95 * len(same)


def test_little_memory_changes_no_token(tiny_folder, llama):
    model = probe.load_model(tiny_folder("llama"), device="cpu", memory="150KB")
    trunk, prompts = scene(llama)
    assert Branches(model, trunk, 40, TokenForwards()).slots(512) < 8 * 4 < 512, "less than all samples at once"
    assert tree(model, trunk, prompts, 4) == tree(llama, trunk, prompts, 4)
