"""Nucleus sampling, by its definition."""

import pytest
import torch

from probe.traces import nucleus


@pytest.mark.parametrize("top_p", [1e-6, 0.3, 0.9, 1.0])
def test_the_nucleus_is_the_smallest_set_that_reaches_top_p(top_p):
    logits = 3 * torch.randn(20, 50, generator=torch.Generator().manual_seed(0))
    for row, found in zip(logits, nucleus(logits, 0.7, top_p), strict=True):
        chances = [(p, i) for i, p in enumerate((row / 0.7).softmax(-1).tolist())]
        kept, total = [], 0.0
        for p, i in sorted(chances, reverse=True):
            if total < top_p:
                kept.append((p, i))
                total += p
        expected = torch.zeros(50)
        for p, i in kept:
            expected[i] = p / total
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
