"""Attention masks: as few as possible, and with or without one the same states."""

import pytest
import torch

from benchmarks.peak import Peak
from probe.hooks import causal_masks, force, forced_pass
from probe.models import Model
from tests.supported_models import tokenizer
from tests.tiny_models import WINDOW, tiny_config, tiny_model

LONG = [5 + i % 40 for i in range(3 * WINDOW)]
KINDS = ["llama", "mistral", "gemma3_text", "gemma2", "gpt_neox", "gptj", "mpt", "phi3", "llama4_text"]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_text_alone_in_a_padded_batch_and_by_transformers(kind, attention):
    """Alone no mask is made, in a batch one for all rows; in a window and beyond."""
    hf = tiny_model(tiny_config(kind))
    try:
        hf.set_attn_implementation(attention)
    except ValueError:
        pytest.skip(f"{kind} has no {attention}")
    model = Model(hf, tokenizer())
    texts = [LONG, LONG[3 : WINDOW - 1]]
    batch = forced_pass(model, force(model, [text[:1] for text in texts], [text[1:] for text in texts])).logits
    for row, text in enumerate(texts):
        alone = forced_pass(model, force(model, [text[:1]], [text[1:]])).logits[0]
        with torch.no_grad():
            plain = hf(torch.tensor([text])).logits[0, :-1]
        torch.testing.assert_close(alone, plain, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(batch[row, : len(text) - 1], plain, atol=1e-5, rtol=1e-4)


def test_no_mask_is_made_where_attention_is_causal_by_itself():
    llama, gemma = (Model(tiny_model(tiny_config(kind)), tokenizer()) for kind in ("llama", "gemma3_text"))
    real = torch.ones(2, 3 * WINDOW, dtype=torch.bool)
    assert causal_masks(llama, real, 3 * WINDOW) is None
    assert causal_masks(gemma, real[:, :WINDOW], WINDOW) is None
    mixed = causal_masks(gemma, real, 3 * WINDOW)
    assert isinstance(mixed, dict) and mixed["full_attention"] is None and mixed["sliding_attention"] is not None
    padded = real.clone()
    padded[1, -2:] = False
    hole = real.clone()
    hole[1, 5] = False
    assert (causal_masks(llama, hole, 3 * WINDOW)[1, 0, 6:, 5] < 0).all()
    for valid, queries in ((padded, 3 * WINDOW), (padded.flip(1), 3 * WINDOW), (real, 1), (real, 2)):
        mask = causal_masks(llama, valid, queries)
        assert isinstance(mask, torch.Tensor) and mask.shape == (2, 1, queries, 3 * WINDOW)
        assert mask.isfinite().all() and (mask[:, 0].amax(-1) == 0).all()


def test_a_long_text_takes_memory_for_its_tokens_not_for_their_square():
    model = Model(tiny_model(tiny_config("llama", max_position_embeddings=4096)).to(torch.bfloat16), tokenizer())
    peaks = []
    for length in (1000, 4000):
        forced = force(model, [[5]], [[6] * (length - 1)])
        with Peak() as peak:
            forced_pass(model, forced, "resid_post.1", logits=False)
        peaks.append(peak.peak)
    assert peaks[1] < 4.2 * peaks[0]
