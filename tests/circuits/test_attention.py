"""Patterns are transformers' own, sentences are means over tokens, and a head that narrows attention is found."""

import pytest
import torch

from probe.circuits import Attention, attention, receiver_heads, sentence_attention
from probe.errors import ProbeError
from probe.models import Model, ModelConfig, load_model
from probe.reports import attention_patterns, receivers_figure, sentence_figure, write_attention
from tests.circuits.conftest import drawn_pairs
from tests.supported_models import tokenizer
from tests.tiny_models import VOCAB, tiny_config, tiny_model

SPANS = [(0, 3), (3, 4), (4, 9)]


def test_patterns_are_transformers_own(tiny_folder, arch):
    model = load_model(ModelConfig(str(tiny_folder(arch))), device="cpu")
    ids = drawn_pairs().clean[0][0]
    found = attention(model, ids)
    model.hf.set_attn_implementation("eager")
    expected = torch.stack([each[0] for each in model.hf(ids[None], output_attentions=True).attentions])
    torch.testing.assert_close(found.patterns, expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(attention(model, ids, [2]).head(2, 1), found.head(2, 1))


def test_sentences_are_means_over_pairs_of_tokens(llama):
    ids = drawn_pairs().clean[0][0]
    tokens, sentences = attention(llama, ids), sentence_attention(llama, ids, SPANS)
    for i, (start, end) in enumerate(SPANS):
        for j, (first, last) in enumerate(SPANS):
            expected = tokens.patterns[:, :, start:end, first:last].mean((2, 3))
            torch.testing.assert_close(sentences.patterns[:, :, i, j], expected, atol=1e-6, rtol=1e-4)
    some = sentence_attention(llama, ids, SPANS, [2])  # the other blocks use fused attention
    torch.testing.assert_close(some.head(2, 1), sentences.head(2, 1), atol=1e-6, rtol=1e-4)
    assert sentences.names[1] == llama.decode([int(ids[3])]).strip()
    with pytest.raises(ProbeError, match="tokens 4 to 10 are not a sentence"):
        sentence_attention(llama, ids, [(4, 10)])


@pytest.mark.parametrize("kind", ["gemma2", "gpt_oss"])
def test_a_few_queries_at_a_time_give_the_same(kind):
    """With windows, soft caps and sinks, whatever the number of queries in a part."""
    model = Model(tiny_model(tiny_config(kind)), tokenizer())
    ids = torch.randint(4, VOCAB, (40,), generator=torch.Generator().manual_seed(0))
    spans, whole = [(0, 5), (7, 30), (30, 40)], attention(model, ids)
    logits = model.hf(ids[None]).logits
    model.memory = 1  # so that 16 queries are read at a time
    found = sentence_attention(model, ids, spans, [1, 0], n_links=3)
    assert found.layers == (1, 0) and found.links is not None
    for at, layer in enumerate(found.layers):
        pattern = whole.patterns[layer]
        rows = [torch.stack([pattern[:, a:b, c:d].mean((1, 2)) for c, d in spans], -1) for a, b in spans]
        torch.testing.assert_close(found.patterns[at], torch.stack(rows, 1), atol=1e-6, rtol=1e-4)
        strongest = pattern.topk(3, -1)
        torch.testing.assert_close(found.links.weight[at], strongest.values, atol=1e-6, rtol=1e-4)
        there = strongest.values > 1e-6
        assert torch.equal(found.links.to[at][there], strongest.indices[there].int())
    assert torch.equal(model.hf(ids[None]).logits, logits), "attention is as before"


def test_a_head_that_looks_at_one_sentence_receives():
    n = 16
    even = torch.ones(n, n).tril(-1) / n
    narrow = even.clone() * 0.1
    narrow[:, 2] = 1.0
    found = receiver_heads([Attention(tuple("abcdefghijklmnop"), (0,), torch.stack([even, narrow.tril(-1)])[None])])
    assert found.strongest(1) == [(0, 1)]
    assert found.vertical[0][0, 1].nan_to_num(0).argmax() == 2 and found.vertical[0][0, 0, -1].isnan()
    with pytest.raises(ProbeError, match="no text has three sentences"):
        receiver_heads([Attention(tuple("abcd"), (0,), torch.rand(1, 2, 4, 4))])


def test_views_stand_alone_and_trust_no_text(llama, tmp_path):
    ids = drawn_pairs().clean[0][0]
    found = attention(llama, ids)
    evil = ["</script><b>", *found.names[1:]]
    view = attention_patterns(evil, found.patterns[0]).data
    assert "</script><b>" not in view and "http" not in view
    page = write_attention(found, tmp_path / "attention.html").read_text()
    assert page.count("a3.h3") == 1 and "http" not in page
    sentences = sentence_attention(llama, ids, SPANS)
    drawn = sentence_figure(sentences, 1, 2).data[0]
    assert list(drawn.z[0]) == [None, None, None] and drawn.z[2][0] == pytest.approx(float(sentences.head(1, 2)[2, 0]))
    long = Attention(tuple("a" * 12), (0,), torch.rand(1, 2, 12, 12))
    assert receivers_figure(receiver_heads([long])).data
    with pytest.raises(ProbeError, match="too many for a view"):
        attention_patterns(["a"] * 3000, torch.zeros(1, 3000, 3000))
