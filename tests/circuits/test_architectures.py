"""Circuits of many architectures: found, or refused in one line."""

import pytest
import torch

from probe.circuits import EdgeLens, attribute, direct_attribution, logit_difference
from probe.errors import NotApplicable
from probe.models import Model
from tests.circuits.conftest import drawn_pairs
from tests.supported_models import tokenizer
from tests.tiny_models import VOCAB, tiny_config, tiny_model


def tiny(kind: str, **changes) -> Model:
    return Model(tiny_model(tiny_config(kind, **changes)), tokenizer())


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("phi", {}, r"no site 'resid_mid\.0': attention and MLP read the same residual stream"),
        ("granite", {"residual_multiplier": 0.22}, "because a norm or a factor follows them"),
        ("qwen3_next", {}, r"no site 'z\.0': layer 0 has linear attention"),
        ("deepseek_v3", {}, "TransformerLens cannot separate the heads"),
    ],
)
def test_circuits_of_what_cannot_be_separated_are_refused_in_one_line(kind, changes, said):
    with pytest.raises(NotApplicable, match=said):
        EdgeLens(tiny(kind, **changes))


@pytest.mark.parametrize("kind", ["smollm3", "qwen3_moe", "gpt_oss"])
def test_the_edges_of_a_model_are_its_own(kind):
    """The contributions of all writers give its logits."""
    model = tiny(kind)
    lens, pairs = EdgeLens(model), drawn_pairs(rows=3, vocab=VOCAB)
    clean, _, right, wrong = next(iter(pairs))
    with torch.no_grad():
        logits = model.hf(clean).logits
        torch.testing.assert_close(lens.logits(clean), logits, atol=1e-4, rtol=1e-4)
        parts = direct_attribution(lens, clean, right, wrong)
    torch.testing.assert_close(sum(parts.values()), logit_difference(right, wrong)(logits), atol=1e-3, rtol=1e-3)


def test_the_way_from_corrupt_to_clean_adds_up():
    """Not so in a mixture of experts: where other experts are chosen on the way, the metric jumps."""
    lens, pairs = EdgeLens(tiny("smollm3")), drawn_pairs(rows=3, vocab=VOCAB)
    clean, corrupt, right, wrong = next(iter(pairs))
    metric = logit_difference(right, wrong)
    with torch.no_grad():
        fall = float((metric(lens.logits(corrupt)) - metric(lens.logits(clean))).mean())
    found = float(attribute(lens, pairs, "eap-ig-inputs", steps=16).scores[0].sum())
    assert abs(found - fall) < 0.1 * abs(fall)
