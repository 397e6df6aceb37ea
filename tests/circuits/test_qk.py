"""The parts of a head's score add up to the score that TransformerLens computes, and each is what its writer makes."""

from typing import Any

import pytest
import torch

from probe.circuits import EdgeLens, qk_attribution
from probe.errors import NotApplicable, ProbeError
from probe.models import ModelConfig, load_model
from tests.circuits.conftest import drawn_pairs

HEAD, QUERY, KEYS = (2, 3), 7, (0, 5, 7)


@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3", "gpt2", "mistral", "phi3", "gpt_neox"])
def test_parts_add_up_to_the_score_of_transformer_lens(tiny_folder, arch):
    model = load_model(ModelConfig(str(tiny_folder(arch))), device="cpu")
    ids = drawn_pairs().clean[0][0]
    own = model.hf.config._attn_implementation
    found = qk_attribution(model, ids, HEAD, query=QUERY, keys=KEYS)
    assert model.hf.config._attn_implementation == own
    bridge = model.lens()
    scores = {}
    with bridge.hooks(fwd_hooks=[("blocks.2.attn.hook_attn_scores", lambda value, **_: scores.update(x=value))]):
        bridge(ids[None])
    expected = scores["x"][0, HEAD[1], QUERY, list(KEYS)]
    torch.testing.assert_close(found.score, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.parts.sum((1, 2)), expected, atol=1e-4, rtol=1e-4)
    assert len(found.writers) == 1 + 2 * 5 + 1 and found.writers[:3] == ("embed", "a0.h0", "a0.h1")
    assert "a2.h3" in found._repr_html_() and len(found.rows()) == 3 * len(found.writers)


def test_a_part_is_what_its_writer_makes(llama):
    """Against the weights of a model without norms of queries and keys, with rotation by the definition."""
    ids = drawn_pairs().clean[0][0]
    found = qk_attribution(llama, ids, HEAD, query=QUERY, keys=KEYS)
    written = EdgeLens(llama).written(ids[None])[:11, 0]
    block = llama.hf.model.layers[2]
    stream = written.sum(0)
    scale = (stream.square().mean(-1, keepdim=True) + block.input_layernorm.variance_epsilon).rsqrt()
    normed = written * scale * block.input_layernorm.weight
    q = (normed @ block.self_attn.q_proj.weight.T).unflatten(-1, (4, 8))[:, :, 3]
    k = (normed @ block.self_attn.k_proj.weight.T).unflatten(-1, (2, 8))[:, :, 1]

    def rotated(x, at):
        angle = at * 10000.0 ** (-torch.arange(4) / 4)
        a, b = x.chunk(2, -1)
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)

    for i, key in enumerate(KEYS):
        expected = rotated(q[:, QUERY], QUERY) @ rotated(k[:, key], key).T / 8**0.5
        torch.testing.assert_close(found.parts[i, :-1, :-1], expected, atol=1e-5, rtol=1e-4)
    assert found.parts[:, -1].abs().max() < 1e-5, "without biases nothing else is asked for"
    name, other, most = found.top(5)[0]
    assert most == found.parts[1, found.writers.index(name), found.writers.index(other)]
    assert abs(most) == found.parts[1].abs().max()
    torch.testing.assert_close(found.against(5, 0).sum(), found.score[1] - found.score[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_half_precision_adds_up_within_its_rounding(tiny_folder, arch):
    exact = load_model(ModelConfig(str(tiny_folder(arch))), device="cpu")
    rough = load_model(ModelConfig(str(tiny_folder(arch))), device="cpu", dtype="bfloat16")
    ids = drawn_pairs().clean[0][0]
    a, b = (qk_attribution(model, ids, HEAD, query=QUERY, keys=KEYS) for model in (exact, rough))
    assert (a.parts - b.parts).norm() < 0.1 * a.parts.norm()


def test_bad_heads_and_models_are_refused(llama, tiny_folder):
    ids = drawn_pairs().clean[0][0]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"head": (2, 4)}, "no head a2.h4"),
        ({"keys": [8]}, "each key must be"),
        ({"query": 9}, "in 9 tokens"),
    ]
    for settings, said in cases:
        with pytest.raises(ProbeError, match=said):
            qk_attribution(llama, ids, **({"head": HEAD, "query": QUERY, "keys": KEYS} | settings))
    gemma = load_model(ModelConfig(str(tiny_folder("gemma2"))), device="cpu")
    with pytest.raises(NotApplicable, match="do not add up"):
        qk_attribution(gemma, ids, HEAD, query=QUERY, keys=KEYS)
