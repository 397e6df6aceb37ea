"""Forward passes over documents: batches of similar length, and the states read from them."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probe.errors import ProbeError
from probe.hooks import capture, row_bytes
from probe.models import Model, Sizes, check_frequencies


def batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Group sequences of similar length, so that there is little padding.

    Args:
        lengths: the length of each sequence; empty sequences are left out.
        batch_tokens: the maximum number of tokens in a batch, padding included; a longer sequence gets its own batch.

    Yields:
        The indices of the sequences of a batch.

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


def tokens_at_once(model: Model, widths: Sequence[int]) -> int:
    """Estimate how many tokens, padding included, one pass can read within the model's budget; at least 1.

    A block holds the residual stream, its attention (or its scan) and its MLP; the states of every site are kept until
    the pass ends, and are averaged in float32, one site after the other.

    Args:
        widths: the width of each site that is read.
    """
    sizes, size = Sizes.of(model.hf.config), model.dtype.itemsize
    block = size * (8 * model.d_model + 4 * sizes.d_mlp) + sizes.scanned * torch.float32.itemsize
    bytes_each = block + size * sum(widths) + (size + 8) * max(widths, default=0)
    return max(1, model.budget // bytes_each)


@torch.no_grad()
def fitting_tokens(model: Model, lengths: Sequence[int], sites: int = 1) -> int:
    """The number of tokens of a batch, padding included, for which half of the memory budget suffices.

    Args:
        lengths: the length of each sequence.
        sites: the number of sites that are read.
    """
    longest = max(1, max(lengths, default=1))
    return longest * max(1, model.budget // 2 // row_bytes(model, longest, sites))


def read(
    model: Model, sequences: Sequence[Sequence[int]], sites: Sequence[str]
) -> tuple[dict[str, Float[Tensor, "batch pos ..."]], Bool[Tensor, "batch pos"]]:
    """Run one right-padded pass up to the deepest site.

    Args:
        sequences: token ids of each row.

    Returns:
        The states at each site, on the model's device; and a mask that is False at padding.

    Raises:
        ProbeError: if a site has no vector for each token, or the model's frequencies depend on the length of such
            texts.
    """
    width = max(map(len, sequences))
    check_frequencies(model.hf, width)
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
    """Make the error for a site that has no vector for each token."""
    return ProbeError(f"{site} does not have a vector for each token and cannot be harvested; read it with capture")


def norms(states: Float[Tensor, "batch pos *shape"]) -> Float[Tensor, "batch pos"]:
    """Compute the norm of each token's vector, always in float32."""
    return torch.linalg.vector_norm(states.flatten(2), dim=-1, dtype=torch.float32)


def means(
    states: Float[Tensor, "batch pos *shape"],
    outlying: Bool[Tensor, "batch pos"],
    at: Int[Tensor, " token"],
    lengths: Int[Tensor, " row"],
) -> tuple[Float[Tensor, "row width"], Bool[Tensor, " row"]]:
    """Average the tokens of each row without outliers; a row that has only outliers gets their mean.

    Args:
        states: the states at a site.
        outlying: True for outlier tokens.
        at: the tokens of all rows, one row after the other, as indices into ``[batch * pos]``.
        lengths: the number of tokens of each row, at least 1.

    Returns:
        The means in float32, and a mask of the rows that have only outliers.
    """

    def total(tokens: Tensor) -> Tensor:
        # unsafe: the lengths are known to be right, and checking them would make the host wait for the device.
        return torch.segment_reduce(tokens, "sum", lengths=lengths, axis=0, unsafe=True)

    kept = ~outlying.flatten()[at]
    count = total(kept.float())
    alone = count == 0
    kept |= alone.repeat_interleave(lengths, output_size=len(at))
    tokens = states.flatten(2).flatten(0, 1)[at].float().masked_fill_(~kept[:, None], 0)
    return total(tokens) / torch.where(alone, lengths, count)[:, None], alone


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device without waiting for the device."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
