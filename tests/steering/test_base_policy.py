"""The policy that never asks: it learns what the base model's state tells, and says what it does not."""

import pytest
import torch

from probe.errors import ProbeError
from probe.steering import BasePolicy, PolicyConfig, learn_policy, residual_bits
from probe.steering.base_policy import PolicyData


def planted(n, seed):
    """Steered where the first coordinate is high, with the behaviour that the second tells; two layers of width 4."""
    x = torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))
    return PolicyData(x, torch.where(x[:, 0] > 1, 1 + (x[:, 5] > 0).long(), 0))


def test_it_learns_what_can_be_told_and_loads_as_saved(tmp_path):
    learned = learn_policy(
        planted(6000, 0),
        planted(1000, 1),
        layers=(0, 3),
        n_behaviours=2,
        config=PolicyConfig(hidden=32, batch_size=128, lr=0.01),
        seed=0,
    )
    assert learned.converged and learned.history[-1]["train"] < learned.history[1]["train"]
    policy = learned.policy
    test = planted(1000, 2)
    found = residual_bits(policy, test)
    assert found["gate_recall"] > 0.9 and found["gate_precision"] > 0.9 and found["behaviour_accuracy"] > 0.9
    assert found["bits_per_token"] < 0.25

    policy.save(tmp_path)
    again, resid = BasePolicy.load(tmp_path), {0: test.states[:, :4], 3: test.states[:, 4:]}
    assert again.layers == (0, 3)
    assert torch.equal(again.gate(resid), policy.gate(resid))
    assert torch.equal(again.behaviour(resid), policy.behaviour(resid))
    assert (again.gate(resid) == (test.wanted > 0)).float().mean() > 0.95
    half = {layer: state.bfloat16() for layer, state in resid.items()}
    assert torch.equal(again.gate(half), policy.gate(half)), "states in half precision are read in float32"
    assert (again.gate(half) == policy.gate(resid)).float().mean() > 0.99
    assert repr(again) == "BasePolicy(2 behaviours, layers 0, 3, hidden 32)"


def test_what_the_state_does_not_tell_stays_to_be_told():
    """Fair coins: nothing is learned, and a bit a token is left."""
    state = torch.get_rng_state()

    def coins(n, seed):
        generator = torch.Generator().manual_seed(seed)
        return PolicyData(torch.randn(n, 8, generator=generator), torch.randint(0, 2, (n,), generator=generator))

    policy = learn_policy(
        coins(4000, 0), coins(2000, 1), layers=(0, 1), n_behaviours=1, config=PolicyConfig(hidden=8), seed=0
    ).policy
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers stay"
    assert 0.98 < residual_bits(policy, coins(2000, 2))["bits_per_token"] < 1.05


def test_states_that_do_not_fit_or_are_not_finite_are_refused():
    settings = {"n_behaviours": 2, "config": PolicyConfig(hidden=4, steps=1), "seed": 0}
    holed = planted(50, 0)
    holed.states[7, 3] = float("nan")
    for wrong, layers, said in (
        (holed, (0, 3), "a state that the policy reads is not finite"),
        (planted(50, 0), (0, 1, 2), "8 wide with classes up to 2; for 3 layers"),
    ):
        with pytest.raises(ProbeError, match=said):
            learn_policy(wrong, planted(50, 1), layers=layers, **settings)
