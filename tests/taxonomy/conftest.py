from collections.abc import Callable

import pytest
import torch

from probe.activations import SentenceActivations

#: The sentences of six planted behaviours.
OPENINGS = ("Alpha adds", "Beta checks", "Gamma plans", "Delta restates", "Epsilon concludes", "Zeta chats")


@pytest.fixture(scope="session")
def planted() -> Callable[..., SentenceActivations]:
    """``planted(n, seed)``: activations in six directions around a large offset, of several lengths, with noise."""
    generator = torch.Generator().manual_seed(7)
    directions = torch.nn.functional.normalize(torch.randn(6, 32, generator=generator), dim=1)
    offset = 20 * torch.randn(32, generator=generator)

    def make(n: int, seed: int, noise: float = 0.06, outliers: int = 0) -> SentenceActivations:
        own = torch.Generator().manual_seed(seed)
        kind = torch.randint(6, (n,), generator=own)
        length = 3 + 4 * torch.rand(n, 1, generator=own)
        x = offset + length * (directions[kind] + noise * torch.randn(n, 32, generator=own))
        x[:outliers] = 1e5 * torch.randn(outliers, 32, generator=own)
        texts = [f" {OPENINGS[i]} {number} things." for number, i in enumerate(kind.tolist())]
        return SentenceActivations({"resid_post.1": x}, [(i, 0) for i in range(n)], texts, "tiny")

    return make
