"""A real checkpoint with grouped heads: attribution, patching and attention views hold on SmolLM2-135M."""

import pytest
import torch
from scipy.stats import spearmanr

from probe.circuits import (
    EdgeLens,
    attention,
    attribute,
    direct_attribution,
    logit_lens,
    patch,
    path_effect,
    sentence_attention,
)
from probe.circuits.pairs.pairs import grouped
from probe.reports import attention_patterns

pytestmark = pytest.mark.slow

TEXTS = (
    ("The capital of France is", "The capital of Japan is", " Paris", " Tokyo"),
    ("The capital of Italy is", "The capital of China is", " Rome", " Beijing"),
)


@pytest.fixture(scope="module")
def pairs(smollm2):
    rows = []
    for clean, corrupt, right, wrong in TEXTS:
        ids = [smollm2.tokenizer(text).input_ids for text in (clean, corrupt)]
        rows.append((*ids, smollm2.tokenizer(right).input_ids[0], smollm2.tokenizer(wrong).input_ids[0]))
    assert len({len(row[0]) for row in rows} | {len(row[1]) for row in rows}) == 1
    return grouped(smollm2, {len(rows[0][0]): rows})


@pytest.fixture(scope="module")
def lens(smollm2):
    return EdgeLens(smollm2)


@pytest.mark.long
def test_integrated_gradients_are_complete_and_rank_direct_edges(smollm2, lens, pairs):
    found = attribute(lens, pairs, "eap-ig-inputs", steps=8)
    clean, corrupt, right, wrong = next(iter(pairs))
    rows = torch.arange(len(clean))
    ends = [smollm2.hf(ids).logits[:, -1] for ids in (corrupt, clean)]
    fall = float((ends[0] - ends[1])[rows, right].sub((ends[0] - ends[1])[rows, wrong]).mean())
    assert float(found.scores[0].sum()) == pytest.approx(fall, rel=0.1)
    # Some edges exactly, by path patching: those of the last block to the logits.
    names = [f"{name}->logits" for name in lens.graph.writers[-8:]]
    exact = torch.stack([path_effect(lens, pairs, [name]).mean() for name in names])
    scored = torch.stack([found.scores[lens.graph.edge(name)] for name in names])
    assert spearmanr(scored.abs(), exact.abs()).statistic >= 0.8


@pytest.mark.long
def test_patches_bring_back_what_the_subject_holds(smollm2, pairs):
    found = patch(smollm2, pairs, last=2)
    assert found.values[0, -2] == pytest.approx(1, abs=0.05), "in low blocks the country's name carries all of it"
    assert found.values[-1, -1] > 0.6 and found.values[-1, -2] < 0.4, "in high blocks the last token does"
    heads = patch(smollm2, pairs, "z")
    assert heads.values.shape == (30, 9) and heads.values.max() > 0.02


def test_views_hold(smollm2, lens, pairs):
    clean, _, right, wrong = next(iter(pairs))
    parts = direct_attribution(lens, clean, right, wrong)
    logits, rows = smollm2.hf(clean).logits[:, -1], torch.arange(len(clean))
    total = torch.stack(list(parts.values())).sum(0)
    torch.testing.assert_close(total, logits[rows, right] - logits[rows, wrong], atol=1e-2, rtol=1e-3)
    read = logit_lens(smollm2, clean[0])
    assert int(read.top[-1, -1]) == int(logits[0].argmax())
    seen = attention(smollm2, clean[0], [0, 15])
    torch.testing.assert_close(seen.patterns.sum(-1), torch.ones(2, 9, clean.shape[1]), atol=1e-4, rtol=1e-4)
    assert '" France"' in attention_patterns(seen.names, seen.patterns[1]).data
    assert sentence_attention(smollm2, clean[0], [(0, 2), (2, 5)]).patterns.shape == (30, 9, 2, 2)
