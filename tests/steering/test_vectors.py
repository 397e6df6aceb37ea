"""The vectors object: units, files, and the norm-matched control."""

import pytest
import torch

from probe.errors import ProbeError
from probe.files import read_json, write_json
from probe.steering import BehaviourVectors, FixedVectors, RankOne, load_mechanism, random_like


def made(unit=3.0):
    torch.manual_seed(0)
    vectors = BehaviourVectors(4, 16, 2, hidden=8, unit=unit)
    vectors.directions.data.normal_()
    vectors.strength_out.weight.data.normal_()
    return vectors.requires_grad_(False)


def test_every_behaviour_starts_at_strength_one():
    fresh = BehaviourVectors(4, 16, 2)
    strength = fresh.strength(torch.randn(5, 16), torch.tensor([0, 1, 2, 3, 0]))
    torch.testing.assert_close(strength, torch.ones(5), atol=0.01, rtol=0)


def test_strength_is_positive_and_the_shift_is_strength_times_vector():
    vectors, behaviour = made(), torch.tensor([3, 0, 1])
    resid = torch.randn(3, 16)
    strength = vectors.strength(resid, behaviour)
    assert (strength > 0).all()
    shift = vectors.shift(resid, strength, behaviour)
    for row in range(3):
        torch.testing.assert_close(shift[row], strength[row] * vectors.vectors[behaviour[row]])


def test_units_do_not_matter_to_the_strengths():
    """A model whose residual stream is ten times larger is read the same way and shifted ten times as far."""
    small, large = made(unit=1.0), made(unit=10.0)
    resid, behaviour = torch.randn(5, 16), torch.arange(5) % 4
    strength = small.strength(resid, behaviour)
    torch.testing.assert_close(large.strength(10 * resid, behaviour), strength)
    torch.testing.assert_close(
        large.shift(10 * resid, strength, behaviour), 10 * small.shift(resid, strength, behaviour)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [BehaviourVectors, FixedVectors, RankOne])
def test_loaded_equals_saved_whatever_the_kind(tmp_path, kind, dtype):
    torch.manual_seed(0)
    mechanism = kind(4, 16, 2, unit=3.0, persistent=True)
    for parameter in mechanism.parameters():
        parameter.data.normal_()
    mechanism.save(tmp_path)
    again = load_mechanism(tmp_path)
    resid, behaviour = torch.randn(5, 16).to(dtype), torch.arange(5) % 4
    strength = mechanism.strength(resid, behaviour)
    assert not mechanism.shift(resid, torch.zeros(5), behaviour).any(), "strength 0 is no shift"
    assert repr(again) == f"{kind.__name__}(4 behaviours, resid_post.2, persistent)"
    assert type(again) is kind and (again.layer, again.persistent) == (2, True)
    assert torch.equal(again.strength(resid, behaviour), strength)
    assert torch.equal(again.shift(resid, strength, behaviour), mechanism.shift(resid, strength, behaviour))
    control = random_like(again, seed=0)
    torch.testing.assert_close(control.vectors.norm(dim=1), again.vectors.norm(dim=1))

    write_json(tmp_path / "mechanism.json", read_json(tmp_path / "mechanism.json") | {"kind": "Wishes"})
    with pytest.raises(ProbeError, match="unknown kind 'Wishes'"):
        load_mechanism(tmp_path)


def test_folding_makes_mean_strengths_one_and_keeps_the_shifts():
    vectors, resid, behaviour = made(), torch.randn(40, 16), torch.arange(40) % 4
    strength = vectors.strength(resid, behaviour)
    before = vectors.shift(resid, strength, behaviour)
    vectors.fold(torch.stack([strength[behaviour == k].mean() for k in range(4)]))
    folded = vectors.strength(resid, behaviour)
    torch.testing.assert_close(torch.stack([folded[behaviour == k].mean() for k in range(4)]), torch.ones(4))
    torch.testing.assert_close(vectors.shift(resid, folded, behaviour), before)


def test_random_control_keeps_norms_and_strengths_but_not_directions():
    vectors = made()
    control = random_like(vectors, seed=0)
    torch.testing.assert_close(control.vectors.norm(dim=1), vectors.vectors.norm(dim=1))
    assert torch.nn.functional.cosine_similarity(control.vectors, vectors.vectors).abs().max() < 0.9
    resid, behaviour = torch.randn(5, 16), torch.arange(5) % 4
    assert torch.equal(control.strength(resid, behaviour), vectors.strength(resid, behaviour))
    assert torch.equal(random_like(vectors, seed=0).vectors, control.vectors)
    assert not torch.equal(random_like(vectors, seed=1).vectors, control.vectors)
