"""Loading what was learned does not touch the caller's random numbers."""

import torch

from probe.steering import BasePolicy, BehaviourVectors, ComingReader, load_mechanism


def test_loading_leaves_the_callers_random_numbers(tmp_path):
    BehaviourVectors(2, 8, 1).save(tmp_path / "vectors")
    BasePolicy((0,), 8, 2).save(tmp_path / "policy")
    ComingReader(0, 8, 2).save(tmp_path / "reader")
    state = torch.get_rng_state()
    load_mechanism(tmp_path / "vectors")
    BasePolicy.load(tmp_path / "policy")
    ComingReader.load(tmp_path / "reader")
    assert torch.equal(torch.get_rng_state(), state)
