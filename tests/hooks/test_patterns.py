"""Attention patterns that are handed over while a text is read."""

import pytest
import torch

import probe
from probe.errors import ProbeError
from probe.hooks import watch_patterns


def test_a_batch_is_refused_because_only_one_text_is_watched(tiny_folder):
    model, seen = probe.load_model(tiny_folder("llama"), device="cpu"), []
    ids = torch.tensor([[5, 6, 7], [7, 6, 5]])
    with watch_patterns(model, [0], lambda *given: seen.append(given)):
        with pytest.raises(ProbeError, match="one text at a time, not in a batch of 2"):
            model.hf(ids)
        model.hf(ids[:1])
    assert [(layer, start, pattern.shape[1:]) for layer, start, pattern in seen] == [(0, 0, (3, 3))]
