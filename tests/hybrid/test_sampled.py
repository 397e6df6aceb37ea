"""Sampled arms: they draw from the distribution that they should, and equal the sampled models where they must."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, chisquare

from probe.errors import ProbeError
from probe.hybrid import (
    AddVector,
    Always,
    Arm,
    Disagreement,
    FixedStrength,
    ForceToken,
    Never,
    OneBehaviour,
    Rerank,
    decode_hybrid,
    evaluate_arm,
)
from probe.models import GREEDY, PairSampling, Sampling
from probe.problems import load_problems
from probe.steering import FixedVectors
from probe.traces import generate_traces, probabilities, stream_samples

WARM = Sampling(temperature=1.3, top_p=0.9)
BOTH = PairSampling(WARM, Sampling(temperature=0.8, top_k=12), samples=3)
N = 8


def arm(where, emit, name="mine"):
    return Arm(name, where, OneBehaviour(), FixedStrength(), emit)


@pytest.fixture
def pair(llamas):
    return llamas


@pytest.fixture
def problem_set():
    return load_problems("story")


@pytest.fixture
def problems(problem_set):
    return problem_set.take("test", 4)


@pytest.fixture
def vectors(pair):
    generator = torch.Generator().manual_seed(0)
    return FixedVectors.of(torch.randn(1, pair.base.d_model, generator=generator), 1)


def test_arms_that_change_nothing_write_what_the_models_write(pair, problems, problem_set, vectors):
    def of(model, sampling):
        found = generate_traces(model, problem_set, problems, max_new_tokens=N, sampling=sampling, samples=3, seed=5)
        return [(trace.problem_id, trace.sample, list(trace.tokens), trace.truncated) for trace in found]

    def by(made):
        found = decode_hybrid(pair, made, problems, max_new_tokens=N, sampling=BOTH, seed=5)
        return [(trace.problem_id, trace.sample, trace.tokens, trace.truncated) for trace in found]

    base, thinking = of(pair.base, BOTH.base), of(pair.thinking, BOTH.thinking)
    assert by(arm(Never(), AddVector(vectors))) == base
    assert by(Arm("still", Always(), OneBehaviour(), FixedStrength(0.0), AddVector(vectors))) == base
    assert by(arm(Always(), ForceToken())) == thinking
    assert by(arm(Always(), AddVector(vectors))) != base
    # The samples of a problem differ, and so do those of different seeds.
    assert len({tuple(tokens) for _, _, tokens, _ in base}) == len(base)


def test_neither_the_batch_nor_a_folder_changes_a_sample(pair, problems, tmp_path):
    made = arm(Disagreement(), ForceToken())

    def run(**how):
        return evaluate_arm(pair, made, problems, max_new_tokens=N, sampling=BOTH, **how)

    whole = run()
    assert whole.samples == 3 and len(whole.texts) == 3 * len(problems)
    assert run(batch_size=1).texts == run(batch_size=4).texts == whole.texts
    assert run(folder=tmp_path / "kept").traces == run(folder=tmp_path / "kept").traces == whole.traces
    with pytest.raises(ProbeError, match="sampling"):
        evaluate_arm(pair, made, problems, max_new_tokens=N, folder=tmp_path / "kept")


def test_the_gate_compares_the_most_likely_tokens(pair, problems, vectors):
    traces = decode_hybrid(
        pair, arm(Disagreement(), AddVector(vectors)), problems, max_new_tokens=N, sampling=BOTH, seed=1
    )
    assert any(any(trace.steered) for trace in traces)
    for trace in traces:
        apart = [base != thinking for base, thinking in zip(trace.base_token, trace.thinking_token, strict=True)]
        assert trace.steered == apart
        assert trace.tokens != trace.base_token, "the tokens are sampled"


def test_greedy_arms_have_one_answer(pair, problems):
    sampling = PairSampling(GREEDY, Sampling(temperature=0.8), samples=3)
    for made, n in ((arm(Always(), Rerank(2)), 1), (arm(Never(), ForceToken()), 3)):
        assert made.samples(sampling) == n
        assert len(decode_hybrid(pair, made, problems, max_new_tokens=2, sampling=sampling)) == n * len(problems)


def test_a_steered_token_is_drawn_from_the_steered_distribution(pair, problems, vectors):
    """The first token of many samples, against the distribution that a plain hook gives."""
    base, problem = pair.base, problems[0]
    ids = torch.tensor([base.prompt_ids(problem.question)])

    def shift(_module, _inputs, output):
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[:, -1] += vectors.vectors[0]
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = base.layers[1].register_forward_hook(shift)
    with torch.no_grad():
        steered = base.hf(ids).logits[:, -1]
    handle.remove()
    with torch.no_grad():
        plain = base.hf(ids).logits[:, -1]
    how, made = PairSampling(base=WARM, samples=4000), arm(Always(), AddVector(vectors))
    traces = decode_hybrid(base, made, [problem], max_new_tokens=1, sampling=how, batch_size=500)
    ends = set(base.eos_ids)
    counts = torch.tensor([trace.tokens[0] for trace in traces if trace.tokens]).bincount(minlength=steered.shape[-1])

    def p_value(logits):
        chances = probabilities(logits, WARM)[0].double()
        chances[list(ends)] = 0
        some = chances > 0
        if counts[~some].sum():
            return 0.0
        expected = chances[some] / chances[some].sum() * counts.sum()
        return float(chisquare(counts[some].numpy(), expected.numpy()).pvalue)

    assert p_value(steered) > 1e-4 and p_value(plain) < 1e-6


@pytest.mark.parametrize("how", [Sampling(temperature=0.7), Sampling(temperature=1.4, top_k=9), WARM])
def test_samples_have_the_distribution_of_transformers(pair, how):
    """Two tokens of many samples, by probe and by ``generate``."""
    model, prompt, n = pair.base, pair.base.prompt_ids("2 + 3?"), 3000
    ours = {}
    for _, _, tokens, _ in stream_samples(model, [prompt], n, 2, sampling=how, seed=3):
        pair_of = tuple(tokens)
        ours[pair_of] = ours.get(pair_of, 0) + 1

    def theirs(**changed):
        torch.manual_seed(0)
        told = {"temperature": how.temperature, "top_p": how.top_p, "top_k": how.top_k or 0} | changed
        found = model.hf.generate(
            torch.tensor([prompt]), do_sample=True, max_new_tokens=2, num_return_sequences=n,
            pad_token_id=model.pad_id, eos_token_id=list(model.eos_ids), **told,
        )  # fmt: skip
        counts = {}
        for row in found[:, len(prompt) :].tolist():
            end = next((at for at, token in enumerate(row) if token in model.eos_ids), len(row))
            counts[tuple(row[:end])] = counts.get(tuple(row[:end]), 0) + 1
        return counts

    def p_value(other):
        often = [key for key in {*ours, *other} if ours.get(key, 0) + other.get(key, 0) >= 20]
        table = np.array([[each.get(key, 0) for key in often] for each in (ours, other)])
        table = np.column_stack([table, n - table.sum(1)])
        return float(chi2_contingency(table[:, table.any(0)]).pvalue)

    assert p_value(theirs()) > 1e-4
    assert p_value(theirs(temperature=how.temperature / 2)) < 1e-6
