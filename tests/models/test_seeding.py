"""Seeding a block leaves the caller's generators as they were."""

import pytest
import torch

from probe.models import seeded


def test_a_block_is_seeded_and_the_caller_keeps_the_state_even_after_an_error():
    state = torch.get_rng_state()
    with seeded(3):
        first = torch.rand(2)
    with pytest.raises(ZeroDivisionError), seeded(3):
        assert torch.equal(torch.rand(2), first)
        1 / 0  # noqa: B018
    assert torch.equal(torch.get_rng_state(), state)


def test_the_generator_of_apple_devices_is_seeded_and_restored(monkeypatch):
    states = ["before"]
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: states[-1])
    monkeypatch.setattr(torch.mps, "set_rng_state", states.append)
    monkeypatch.setattr(torch.mps, "manual_seed", states.append)
    with pytest.raises(ZeroDivisionError), seeded(3, "mps"):
        assert states[-1] == 3
        1 / 0  # noqa: B018
    assert states[-1] == "before"
