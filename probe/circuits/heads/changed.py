"""Ablating and scaling attention heads in the model itself, and random heads of the same layers as controls."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probe.activations import Document, documents_of
from probe.circuits.edges.circuit import Circuit
from probe.circuits.names import ABLATIONS
from probe.config import nearest
from probe.errors import ProbeError
from probe.hooks import Apply, Selection, Tokens, capture, edit
from probe.models import Model
from probe.traces import Trace, Traces

Head = tuple[int, int]
"""0-based layer and head."""


def strongest_heads(circuit: Circuit, n: int) -> list[Head]:
    """The heads with the largest shares of a circuit's scores, the strongest first.

    Args:
        n: the largest number of heads; heads without an edge in the circuit are left out.
    """
    share = circuit.heads()
    order = share.flatten().argsort(descending=True).tolist()
    return [divmod(at, circuit.graph.n_heads) for at in order if share.flatten()[at] > 0][:n]


def with_others(heads: Sequence[Head], n_heads: int, n: int) -> list[Head]:
    """The first heads of a list, at most half of those of a layer, so that as many others are left to compare with.

    Args:
        heads: the heads, as ``(layer, head)``.
        n_heads: number of heads of a layer.
        n: the largest number of heads.
    """
    found: list[Head] = []
    for at in heads:
        if len(found) < n and 2 * (1 + sum(layer == at[0] for layer, _ in found)) <= n_heads:
            found.append(at)
    return found


def matched_heads(heads: Sequence[Head], n_heads: int, seed: int) -> list[Head]:
    """Choose a control: for each head, a random other head of the same layer.

    Args:
        heads: the heads, as ``(layer, head)``.
        n_heads: number of heads of a layer.
        seed: seeds the choice.

    Raises:
        ProbeError: if a layer does not have as many other heads.
    """
    generator, found = torch.Generator().manual_seed(seed), []
    for layer in sorted({layer for layer, _ in heads}):
        taken = [head for at, head in heads if at == layer]
        free = [head for head in range(n_heads) if head not in taken]
        if len(free) < len(taken):
            raise ProbeError(
                f"{len(taken)} of the {n_heads} heads of layer {layer} are changed, so there are too few others to "
                "compare with: change fewer heads of that layer"
            )
        found += [(layer, free[i]) for i in torch.randperm(len(free), generator=generator)[: len(taken)].tolist()]
    return found


@dataclass(frozen=True)
class Reference:
    """Head outputs at the tokens of some texts, which replace those of ablated heads.

    Attributes:
        z: for each block, the output of each head before the output projection, ``[tokens, n_heads, d_head]``.
    """

    z: dict[int, Float[Tensor, "tokens n_heads d_head"]]

    def __repr__(self) -> str:
        tokens = next((len(each) for each in self.z.values()), 0)
        return f"Reference({len(self.z)} blocks, {tokens} tokens)"


@torch.no_grad()
def reference(
    model: Model,
    texts: Traces | Sequence[Document | str | Sequence[int]],
    layers: Sequence[int] | None = None,
    *,
    tokens: Tokens | Selection | None = None,
    n_tokens: int = 4096,
    seed: int = 0,
) -> Reference:
    """Record what heads write over some texts, one text in a pass.

    Args:
        texts: traces (read with their prompts), texts, token ids or documents.
        layers: blocks to read, counted from 0; None for all.
        tokens: the tokens to read, normally those at which heads will be ablated; None for all.
        n_tokens: about the largest number of tokens that are kept, random ones of each text, at least one of each.
        seed: seeds their choice.
    """
    asked = list(range(model.n_layers)) if layers is None else sorted(set(layers))
    parts: dict[int, list[Tensor]] = {layer: [] for layer in asked}
    documents, generator = documents_of(model, texts), torch.Generator().manual_seed(seed)
    most = max(1, n_tokens // max(1, len(documents)))
    for document in documents:
        with capture(model, [f"z.{layer}" for layer in asked], tokens=tokens) as acts:
            model.hf(torch.tensor([document.ids], device=model.device), logits_to_keep=1)
        found = {layer: acts[f"z.{layer}"] if tokens is not None else acts[f"z.{layer}"][0] for layer in asked}
        n = len(found[asked[0]]) if asked else 0
        some = torch.arange(n) if n <= most else torch.randperm(n, generator=generator)[:most].sort().values
        for layer, each in found.items():
            parts[layer].append(each[some.to(each.device)])
    return Reference({layer: torch.cat(some) for layer, some in parts.items()})


def start_tokens(traces: Sequence[Trace]) -> Tokens:
    """Select the tokens after which a sentence of some traces begins, such as full stops and line breaks.

    Args:
        traces: traces with sentences.
    """
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
    *,
    reference: Reference | None = None,
    tokens: Tokens | Selection | None = None,
    seed: int = 0,
) -> Iterator[None]:
    """Ablate or scale the output of some heads in every forward pass inside the ``with`` block.

    Zero ablation can take a state out of the range that later blocks are used to, which can break a model that did not
    need the head. The mean over texts keeps what is always present. Resampling replaces the output at each token by
    that of the same heads at a random token of the reference, which keeps the spread too (Chan et al., *Causal
    Scrubbing*, 2022).

    Args:
        model: the model whose heads are changed.
        heads: the heads, as ``(layer, head)``.
        by: one of :data:`ABLATIONS`, or a factor that the heads' output is multiplied by.
        reference: head outputs for ``mean`` and ``resample``, from :func:`reference`.
        tokens: the tokens at which heads are changed; None for all.
        seed: seeds the resampling.

    Raises:
        ProbeError: for an unknown ablation, or one without the reference that it needs.
    """
    if isinstance(by, str) and by not in ABLATIONS:
        raise ProbeError(f"there is no ablation {by!r}; {nearest(by, ABLATIONS)} (choose from {', '.join(ABLATIONS)})")
    layers = sorted({layer for layer, _ in heads})
    if by in ("mean", "resample") and (reference is None or not set(layers) <= set(reference.z)):
        raise ProbeError(f"ablation by {by} needs a reference of the heads' blocks: give reference(model, texts)")
    generator = torch.Generator().manual_seed(seed)

    def instead(z: Tensor, layer: int, some: list[int]) -> Tensor:
        if by not in ("mean", "resample"):
            return z[:, :, some] * (0.0 if by == "zero" else float(by))
        assert reference is not None
        known = reference.z[layer][:, some]
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
