"""Sampling: the nucleus by its definition, random numbers by their reference, and samples of their own."""

import pytest
import torch
from scipy.stats import chisquare, kstest

from probe.models import ModelConfig, Sampling, load_model
from probe.traces import probabilities, random_key, sample_each, stream_samples, token_at, uniform

SOME = Sampling(temperature=0.9, top_p=0.95)
PROMPTS = [[6, 7, 8], [30, *range(40, 59)], [9], [50, 51, 52, 53], [6, 7, 8]]


@pytest.mark.parametrize("top_p", [1e-6, 0.3, 0.9, 1.0])
def test_the_nucleus_is_the_smallest_set_that_reaches_top_p(top_p):
    logits = 3 * torch.randn(20, 50, generator=torch.Generator().manual_seed(0))
    for row, found in zip(logits, probabilities(logits, Sampling(0.7, top_p)), strict=True):
        chances = [(p, i) for i, p in enumerate((row / 0.7).softmax(-1).tolist())]
        kept, total = [], 0.0
        for p, i in sorted(chances, reverse=True):
            if total < top_p:
                kept.append((p, i))
                total += p
        expected = torch.zeros(50)
        for p, i in kept:
            expected[i] = p / total
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_random_numbers_are_those_of_splitmix64():
    """The first outputs for the seed 0, from the reference implementation; and for seeds beyond 2**63."""
    first = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    found = uniform(torch.zeros(3, dtype=torch.long), torch.arange(3))
    assert (found * 2**24).tolist() == [value >> 40 for value in first]
    keys = torch.tensor([random_key("a", number) for number in range(300)])
    assert (keys < 0).any() and (keys > 0).any()
    numbers = uniform(keys.repeat_interleave(40), torch.arange(40).repeat(300))
    assert numbers.min() >= 0 and numbers.max() < 1
    assert kstest(numbers.numpy(), "uniform").pvalue > 1e-4
    assert torch.corrcoef(numbers.view(300, 40).T).fill_diagonal_(0).abs().max() < 0.3


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 1.0), (1.3, 0.8)])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature, top_p):
    logits = torch.tensor([2.0, -1.0, 0.5, 1.5, -3.0, 0.0, float("-inf"), 1.0])
    rows, chances = 20_000, probabilities(logits[None], Sampling(temperature, top_p))[0]
    numbers = uniform(torch.full((rows,), random_key(temperature, top_p)), torch.arange(rows))
    counts = token_at(logits.expand(rows, -1), numbers, Sampling(temperature, top_p)).bincount(minlength=8)
    some = chances > 0
    assert counts[~some].sum() == 0
    expected = chances[some].double()
    assert chisquare(counts[some].numpy(), (rows * expected / expected.sum()).numpy()).pvalue > 1e-4


def test_the_ends_of_the_distribution_and_bad_logits():
    logits = torch.full((3, 1000), -20.0)
    logits[:, 300:600] = torch.rand(300, generator=torch.Generator().manual_seed(0))
    logits[2, 5] = float("nan")
    almost = 1 - 2.0**-24
    tokens = token_at(logits, torch.tensor([0.0, almost, 0.5]), Sampling(1.0, 0.9))
    assert (probabilities(logits[:2], Sampling(1.0, 0.9)).gather(1, tokens[:2, None]) > 0).all()
    assert tokens[0] < 310 and tokens[1] > 590 and tokens[2] == -1


@pytest.fixture
def model(tiny_folder):
    return load_model(ModelConfig(str(tiny_folder("llama", tokenizer="letters"))), device="cpu")


def test_order_and_slots_change_no_sample(model):
    plain = sample_each(model, PROMPTS, 3, 12, seed=4, sampling=SOME)
    assert [len(each) for each in plain] == [3] * 5
    assert len({tuple(tail) for tails in plain for tail in tails}) == 15, "equal prompts have samples of their own"
    order = [2, 3, 0, 1, 4]  # the two equal prompts keep their order
    moved = sample_each(model, [PROMPTS[i] for i in order], 3, 12, seed=4, sampling=SOME)
    assert [moved[order.index(i)] for i in range(5)] == plain
    for slots in (1, 4):
        found = stream_samples(model, PROMPTS, 3, 12, seed=4, sampling=SOME, slots=slots)
        for prompt, number, tokens, _ in found:
            assert plain[prompt][number] == tokens
    assert sample_each(model, PROMPTS[1:2], 2, 12, seed=4, sampling=SOME) == [plain[1][:2]]
    assert sample_each(model, PROMPTS, 3, 12, seed=5, sampling=SOME) != plain


def test_a_sample_ends_where_it_is_enough(model):
    whole = sample_each(model, PROMPTS, 2, 12)
    for prompt, number, tokens, truncated in stream_samples(model, PROMPTS, 2, 12, until=lambda said: len(said) == 5):
        assert tokens == whole[prompt][number][:5]
        assert not truncated
