"""Forward passes over documents: which go together, and what is seen at each token."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probe.errors import ProbeError
from probe.hooks import capture
from probe.models import Model


def batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Sequences of similar length together, so that little is padding.

    Args:
        lengths: of each sequence; those of length 0 are left out.
        batch_tokens: how many tokens, padding included, a batch may hold; a longer sequence goes alone.

    >>> list(batches([3, 9, 0, 2, 3], 8))
    [[3, 0], [4], [1]]
    """
    batch: list[int] = []
    for i in sorted((i for i, length in enumerate(lengths) if length), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[i] > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


@torch.no_grad()
def read(
    model: Model, sequences: Sequence[Sequence[int]], sites: Sequence[str]
) -> tuple[dict[str, Float[Tensor, "batch pos ..."]], Bool[Tensor, "batch pos"]]:
    """One pass, right padded, up to the deepest site and no further.

    Returns:
        What each site has at every token, where the model is; and where the tokens are real.

    Raises:
        ProbeError: if a site has no vector for each token.
    """
    width = max(map(len, sequences))
    ids = torch.full((len(sequences), width), model.pad_id)
    real = torch.zeros(len(sequences), width, dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        real[row, : len(sequence)] = True
    real = to_device(real, model.device)
    with capture(model, sites) as acts:
        model.hf(input_ids=to_device(ids, model.device), attention_mask=real.long(), use_cache=False)
    seen = {site: acts[site] for site in sites}
    for site, states in seen.items():
        if states.shape[:2] != ids.shape or states.ndim < 3:
            raise no_vectors(site)
    return seen, real


def no_vectors(site: str) -> ProbeError:
    """What to say of a site that has no vector for each token."""
    return ProbeError(f"{site} does not have a vector for each token and cannot be harvested; read it with capture")


def norms(states: Float[Tensor, "batch pos *shape"]) -> Float[Tensor, "batch pos"]:
    """The length of each token's vector, in float32 whatever the model's format."""
    return torch.linalg.vector_norm(states.flatten(2), dim=-1, dtype=torch.float32)


def means(
    states: Float[Tensor, "batch pos *shape"],
    outlying: Bool[Tensor, "batch pos"],
    at: Int[Tensor, " token"],
    lengths: Int[Tensor, " row"],
) -> tuple[Float[Tensor, "row width"], Bool[Tensor, " row"]]:
    """The mean of each row's tokens but the outliers, summed in float32; a row of nothing else keeps its plain mean.

    Args:
        states: what a site has.
        outlying: which tokens are outliers.
        at: the tokens of all rows, one row after the other, as indices into ``[batch * pos]``.
        lengths: how many tokens each row has, at least one.

    Returns:
        The means in float32, and which rows are outliers only.
    """

    def total(tokens: Tensor) -> Tensor:
        # Unsafe: the lengths are right, and to look at them the host would wait for the device.
        return torch.segment_reduce(tokens, "sum", lengths=lengths, axis=0, unsafe=True)

    kept = ~outlying.flatten()[at]
    count = total(kept.float())
    alone = count == 0
    kept |= alone.repeat_interleave(lengths, output_size=len(at))
    tokens = states.flatten(2).flatten(0, 1)[at].float().masked_fill_(~kept[:, None], 0)
    return total(tokens) / torch.where(alone, lengths, count)[:, None], alone


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """There, without waiting for what the device is doing."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
