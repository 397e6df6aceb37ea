"""The vectors object: units, files, and the norm-matched control."""

import torch

from probe.steering import BehaviourVectors, random_like


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
    strength = vectors.strength(torch.randn(3, 16), behaviour)
    assert (strength > 0).all()
    shift = vectors.shift(strength, behaviour)
    for row in range(3):
        torch.testing.assert_close(shift[row], strength[row] * vectors.vectors[behaviour[row]])


def test_units_do_not_matter_to_the_strengths():
    """A model whose residual stream is ten times larger is read the same way and shifted ten times as far."""
    small, large = made(unit=1.0), made(unit=10.0)
    resid, behaviour = torch.randn(5, 16), torch.arange(5) % 4
    strength = small.strength(resid, behaviour)
    torch.testing.assert_close(large.strength(10 * resid, behaviour), strength)
    torch.testing.assert_close(large.shift(strength, behaviour), 10 * small.shift(strength, behaviour))


def test_loaded_equals_saved(tmp_path):
    vectors = made()
    vectors.save(tmp_path)
    again = BehaviourVectors.load(tmp_path)
    resid, behaviour = torch.randn(5, 16), torch.arange(5) % 4
    assert torch.equal(again.strength(resid, behaviour), vectors.strength(resid, behaviour))
    assert torch.equal(again.vectors, vectors.vectors)
    assert again.layer == 2


def test_random_control_keeps_norms_and_strengths_but_not_directions():
    vectors = made()
    control = random_like(vectors, seed=0)
    torch.testing.assert_close(control.vectors.norm(dim=1), vectors.vectors.norm(dim=1))
    assert torch.nn.functional.cosine_similarity(control.vectors, vectors.vectors).abs().max() < 0.9
    resid, behaviour = torch.randn(5, 16), torch.arange(5) % 4
    assert torch.equal(control.strength(resid, behaviour), vectors.strength(resid, behaviour))
    assert torch.equal(random_like(vectors, seed=0).vectors, control.vectors)
    assert not torch.equal(random_like(vectors, seed=1).vectors, control.vectors)
