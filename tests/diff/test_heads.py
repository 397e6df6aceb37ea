"""A pair with itself has no heads that changed; a planted change is found; nulls are what they should be."""

import pytest
import torch

from probe.circuits import heads_changed
from probe.diff import agreement, head_shift, load_series, shared_heads
from probe.diff.heads import importance_series
from probe.errors import ProbeError
from probe.models import ModelConfig, load_model
from tests.circuits.conftest import drawn_pairs, llama, wired  # noqa: F401


def test_nothing_changed_between_a_model_and_itself(llama):  # noqa: F811
    found = head_shift(llama, llama, drawn_pairs(rows=16), steps=2)
    assert not (found.grown or found.shrunk or found.emergent or found.lost)
    assert (found.p == 1).all() and found.contrast.abs().max() == 0
    assert "none" in found._repr_html_()
    with pytest.raises(ProbeError, match="4 pairs cannot be divided into 8 parts"):
        head_shift(llama, llama, drawn_pairs(rows=4))


def test_a_head_that_was_taken_out_is_lost(wired, tmp_path):  # noqa: F811
    """The wired Llama without what a1.h3 writes: its share goes to the other way to the logits."""
    wired.hf.save_pretrained(tmp_path / "after")
    wired.tokenizer.save_pretrained(tmp_path / "after")
    after = load_model(ModelConfig(str(tmp_path / "after")), device="cpu")
    with torch.no_grad():
        after.hf.model.layers[1].self_attn.o_proj.weight[:, 24:32] = 0
    found = head_shift(wired, after, drawn_pairs(rows=32), edges=0.15, steps=3)
    assert (1, 3) in found.lost and (1, 2) in found.grown and found.contrast[1, 3] == pytest.approx(-1, abs=1e-3)
    ids = drawn_pairs().clean[0]
    with torch.no_grad(), heads_changed(wired, [(1, 3)], 0.0):
        torch.testing.assert_close(wired.hf(ids).logits, after.hf(ids).logits, atol=1e-5, rtol=1e-4)
    series = importance_series([wired, after], drawn_pairs(rows=8), edges=0.15)
    assert series.share[0, 1, 3] > 0.05 > series.share[1, 1, 3]
    assert series.in_circuit[0, 1, 3] and not series.in_circuit[1, 1, 3]


def test_runs_that_agree_agree_beyond_chance():
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(4, 8, generator=generator)
    alike = [shared + 0.3 * torch.randn(4, 8, generator=generator) for _ in range(3)]
    other = [torch.randn(4, 8, generator=generator) for _ in range(3)]
    found = agreement(alike, n_permutations=200)
    assert found.value > 0.7 and found.value > found.null[1] and found.p < 0.02
    none = agreement(alike, other, n_permutations=200)
    assert none.null[0] < none.value < none.null[1] and none.p > 0.05
    with pytest.raises(ProbeError, match="always agrees with itself"):
        agreement(alike[:1])


def test_checkpoints_are_found_in_the_order_of_their_steps(tmp_path, tiny_folder):
    with pytest.raises(ProbeError, match="holds no checkpoint-STEP"):
        load_series(tmp_path, "{question}")
    for step in (100, 20, 3):
        (tmp_path / f"checkpoint-{step}").symlink_to(tiny_folder("llama"))
    (tmp_path / "checkpoint-best").mkdir()
    series = load_series(tmp_path, "{question}")
    assert series.steps == (3, 20, 100) and len(series) == 3
    assert [step for step, _ in series] == [3, 20, 100]


def test_heads_in_common_are_set_beside_chance():
    same = shared_heads([[(0, 1), (2, 3)]] * 3, 8)
    assert same.heads == ((0, 1), (2, 3)) and same.p < 0.01
    assert same.by_chance == pytest.approx(2 / 64, abs=0.02)
    apart = shared_heads([[(0, 1)], [(0, 2)], [(1, 1)]], 8)
    assert apart.heads == () and apart.p == 1
