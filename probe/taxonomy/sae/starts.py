"""Spherical k-means for many sizes at once, which initialises the SAEs and is a family of its own.

All centres of all runs are in one matrix, so a round of Lloyd's algorithm is two products with the data, however many
runs there are (Dhillon and Modha 2001 for the method, Arthur and Vassilvitskii 2007 for the seeding).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from probe.taxonomy.sae.segments import Segments

#: A size gets this number divided by itself as starts, at least one: few centres are the most likely to reach a poor
#: optimum and the cheapest to start again.
_STARTS = 60


def spherical_centres(
    x: Float[Tensor, "sentence d_model"],
    sizes: Sequence[int],
    seed: int,
    *,
    rounds: int = 10,
    sample: int = 4096,
) -> Float[Tensor, "latent d_model"]:
    """Compute the centres of spherical k-means for each size.

    Of several starts, the one with the highest mean cosine of sentences with their centres is kept. A centre that loses
    all its sentences moves to the sentence with the smallest cosine.

    Args:
        x: vectors of length one.
        sizes: numbers of centres.
        seed: seeds the sample and the starting centres; the result for a size does not depend on the other sizes.
        rounds: the maximum number of rounds of Lloyd's algorithm; it stops earlier at a fixed point of all runs.
        sample: the maximum number of sentences that are used.

    Returns:
        Unit centres, the sizes one after the other as in :class:`Segments`.
    """
    generator = torch.Generator().manual_seed(seed)
    x = x[torch.randperm(len(x), generator=generator)[:sample].to(x.device)]
    starts = [max(1, _STARTS // size) for size in sizes]
    runs = [size for size, n in zip(sizes, starts, strict=True) for _ in range(n)]
    segments = Segments(runs, x.device)
    centres = torch.cat([_seeding(x, size, n, seed) for size, n in zip(sizes, starts, strict=True)])
    before = None
    for _ in range(rounds):
        cosine, latent = segments.best(x @ centres.T)
        if before is not None and torch.equal(latent, before):
            break
        centres, before = _moved(x, segments, cosine, latent), latent
    mean_cosine = segments.best(x @ centres.T)[0].mean(0).tolist()
    best = [max((i for i, run in enumerate(runs) if run == size), key=mean_cosine.__getitem__) for size in sizes]
    columns = segments.slices()
    return torch.cat([centres[columns[i]] for i in best])


def _seeding(x: Tensor, size: int, runs: int, seed: int) -> Float[Tensor, "latent d_model"]:
    """k-means++: each next centre is a random sentence, the more likely the farther it is from the other centres.

    Each size has its own generator, so that its result does not depend on the other sizes.
    """
    generator = torch.Generator().manual_seed(seed * 100_003 + size)
    chosen: Int[Tensor, "run slot"] = torch.zeros(runs, size, dtype=torch.long)
    chosen[:, 0] = torch.randint(len(x), (runs,), generator=generator)
    nearest = 1 - x[chosen[:, 0].to(x.device)] @ x.T
    for slot in range(1, size):
        chosen[:, slot] = torch.multinomial(nearest.clamp(min=1e-9).cpu(), 1, generator=generator)[:, 0]
        nearest = torch.minimum(nearest, 1 - x[chosen[:, slot].to(x.device)] @ x.T)
    return x[chosen.flatten().to(x.device)]


def _moved(x: Tensor, segments: Segments, cosine: Tensor, latent: Tensor) -> Float[Tensor, "latent d_model"]:
    """Each centre in the direction of the sum of its sentences; one without any on the sentence of smallest cosine."""
    members = torch.zeros(len(x), segments.total, device=x.device).scatter_(1, latent, 1.0)
    centres = normalize(members.T @ x, dim=1)
    for empty in (members.sum(0) == 0).nonzero()[:, 0].tolist():
        run = segments.owner[empty]
        worst = cosine[:, run].argmin()
        centres[empty] = x[worst]
        cosine[worst, run] = 1.0
    return centres
