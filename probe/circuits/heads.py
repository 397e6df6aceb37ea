"""Do the heads of a circuit matter? They are switched off in the model itself, beside others of the same layers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from probe._errors import ProbeError
from probe.circuits.circuit import Circuit
from probe.hooks import Apply, edit
from probe.models import Model

Head = tuple[int, int]
"""0-based layer and head."""


def strongest_heads(circuit: Circuit, n: int) -> list[Head]:
    """The heads that most of the scores leave, the strongest first."""
    share = circuit.heads()
    order = share.flatten().argsort(descending=True).tolist()
    return [divmod(at, circuit.graph.n_heads) for at in order if share.flatten()[at] > 0][:n]


def matched_heads(heads: Sequence[Head], n_heads: int, seed: int) -> list[Head]:
    """A control: as many heads of the same layers, drawn from the others there.

    Raises:
        ProbeError: if a layer has not so many others.
    """
    generator, found = torch.Generator().manual_seed(seed), []
    for layer in sorted({layer for layer, _ in heads}):
        taken = [head for at, head in heads if at == layer]
        free = [head for head in range(n_heads) if head not in taken]
        if len(free) < len(taken):
            raise ProbeError(
                f"{len(taken)} of {n_heads} heads of layer {layer} are in the circuit: there are not as many others"
            )
        found += [(layer, free[i]) for i in torch.randperm(len(free), generator=generator)[: len(taken)].tolist()]
    return found


@contextmanager
def heads_scaled(model: Model, heads: Sequence[Head], by: float = 0.0) -> Iterator[None]:
    """Multiply what some heads write, in every pass inside the block; zero switches them off."""

    def scale(some: list[int]) -> Apply:
        def change(z: Tensor) -> Tensor:
            z = z.clone()
            z[:, :, some] *= by
            return z

        return Apply(change)

    layers = sorted({layer for layer, _ in heads})
    with edit(model, {f"z.{layer}": scale([head for at, head in heads if at == layer]) for layer in layers}):
        yield
