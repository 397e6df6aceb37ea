"""Do the heads of a circuit matter? They are switched off in the model itself, beside others of the same layers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probe.activations import Document, documents_of
from probe.circuits.circuit import Circuit
from probe.config import nearest
from probe.errors import ProbeError
from probe.hooks import Apply, Selection, Tokens, capture, edit
from probe.models import Model
from probe.traces import Trace, Traces

#: What is put in a head's place.
ABLATIONS = {
    "zero": "nothing",
    "mean": "what it writes on average",
    "resample": "what it wrote at a token drawn from other texts",
}

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


@dataclass(frozen=True)
class Reference:
    """What heads write otherwise: their mixes of values at the tokens of some texts, for ablation by it.

    Attributes:
        z: of each block ``[tokens, n_heads, d_head]``.
    """

    z: dict[int, Float[Tensor, "tokens n_heads d_head"]]


@torch.no_grad()
def reference(
    model: Model,
    texts: Traces | Sequence[Document | str | Sequence[int]],
    layers: Sequence[int] | None = None,
    *,
    tokens: Tokens | Selection | None = None,
) -> Reference:
    """Read the heads over traces (with their prompts), texts or token ids, one a pass.

    Args:
        layers: blocks; all unless given.
        tokens: only these tokens, as those at which heads will be ablated.
    """
    asked = list(range(model.n_layers)) if layers is None else sorted(set(layers))
    parts: dict[int, list[Tensor]] = {layer: [] for layer in asked}
    for document in documents_of(model, texts):
        with capture(model, [f"z.{layer}" for layer in asked], tokens=tokens) as acts:
            model.hf(torch.tensor([document.ids], device=model.device))
        for layer in asked:
            found = acts[f"z.{layer}"]
            parts[layer].append((found[0] if tokens is None else found).clone())
    return Reference({layer: torch.cat(some) for layer, some in parts.items()})


def start_tokens(traces: Sequence[Trace]) -> Tokens:
    """The tokens that the first token of a sentence is predicted from, by what they are: full stops, line breaks."""
    return Tokens(
        ids=sorted(
            {trace.tokens[each.token_start - 1] for trace in traces for each in trace.sentences if each.token_start}
        )
    )


@contextmanager
def heads_changed(
    model: Model,
    heads: Sequence[Head],
    by: str | float = "zero",
    of: Reference | None = None,
    *,
    tokens: Tokens | Selection | None = None,
    seed: int = 0,
) -> Iterator[None]:
    """Ablate or scale what some heads write, in every pass inside the block.

    Zero takes it out of the range that later blocks know, which can break a model that did not need it; the mean over
    texts keeps what is always there; resampling puts in what the heads of a block wrote at a token drawn anew for each
    token, which keeps its spread too (Chan et al., *Causal Scrubbing*, 2022).

    Args:
        by: one of :data:`ABLATIONS`, or a factor.
        of: what mean and resample draw from.
        tokens: where; everywhere unless given.
        seed: of the draws.

    Raises:
        ProbeError: for an unknown way, or one that lacks its reference.
    """
    if isinstance(by, str) and by not in ABLATIONS:
        raise ProbeError(f"there is no ablation {by!r}; {nearest(by, ABLATIONS)} (of: {', '.join(ABLATIONS)})")
    layers = sorted({layer for layer, _ in heads})
    if by in ("mean", "resample") and (of is None or not set(layers) <= set(of.z)):
        raise ProbeError(f"ablation by {by} needs a reference of its blocks: give reference(model, texts)")
    generator = torch.Generator().manual_seed(seed)

    def instead(z: Tensor, layer: int, some: list[int]) -> Tensor:
        if by not in ("mean", "resample"):
            return z[:, :, some] * (0.0 if by == "zero" else float(by))
        assert of is not None
        known = of.z[layer][:, some]
        if by == "mean":
            return known.mean(0)
        return known[torch.randint(len(known), z.shape[:2], generator=generator).to(known.device)]

    def put(layer: int) -> Apply:
        some = [head for at, head in heads if at == layer]

        def change(z: Tensor) -> Tensor:
            z = z.clone()
            z[:, :, some] = instead(z, layer, some).to(z)
            return z

        return Apply(change)

    with edit(model, {f"z.{layer}": put(layer) for layer in layers}, tokens=tokens):
        yield
