"""A model whose edges can be read, differentiated and cut, on top of TransformerLens' bridge."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probe.circuits.graph import LOGITS, Graph
from probe.errors import NotApplicable
from probe.models import Model, check_frequencies

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Ids = Int[Tensor, "batch pos"]
Written = Float[Tensor, "writers batch some d_model"]
"""What each writer adds to the residual stream, at all tokens or those of a window."""
Metric = Callable[[Float[Tensor, "batch pos vocab"]], Float[Tensor, " batch"]]
"""Computes one number for each row from its logits."""

Window = tuple[int, int | None]
"""Some tokens of a text, as the ends of a slice: ``(0, None)`` is all of them, ``(-64, None)`` the last 64."""
ALL: Window = (0, None)

_SLOTS = {"q": "hook_q_input", "k": "hook_k_input", "v": "hook_v_input", "mlp": "hook_mlp_in"}
_ROUNDINGS = 8
"""Relative tolerance for the sum of the writers against the residual stream, up to a constant, in units of the dtype's
machine epsilon. It is relative to the sum of the writers' absolute values, which bounds their rounding errors."""


class EdgeLens:
    """A model whose edges can each be read, differentiated and cut. It holds a copy of the weights.

    Attributes:
        model: the model that it was made from.
        bridge: TransformerLens' ``TransformerBridge`` on the copied weights.
        graph: the model's writers, readers and edges.

    Args:
        model: a decoder that TransformerLens supports and whose blocks add attention and then MLP to the stream.

    Raises:
        NotApplicable: if TransformerLens does not support the model, or its writers do not add up to the stream,
            because a norm comes after attention or MLP (Gemma 2 and 3) or both read the same stream (GPT-NeoX).
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        bridge = model.lens()
        try:
            bridge.set_use_split_qkv_input(True)
            bridge.set_use_attn_result(True)
            bridge.set_use_hook_mlp_in(True)
        except (ValueError, NotImplementedError, AttributeError) as error:
            raise NotApplicable(f"TransformerLens cannot separate the heads of {model.name}: {error}") from error
        self.bridge: TransformerBridge = bridge.eval().requires_grad_(False)
        cfg: Any = bridge.cfg
        groups = getattr(cfg, "n_key_value_heads", None) or cfg.n_heads
        self.graph = Graph(cfg.n_layers, cfg.n_heads, groups)
        self._check()

    def logits(self, ids: Ids) -> Float[Tensor, "batch pos vocab"]:
        """The logits of the model itself."""
        check_frequencies(self.model.hf, ids.shape[1])
        return self.bridge(ids, return_type="logits")

    @torch.no_grad()
    def written(self, ids: Ids, window: Window = ALL) -> Written:
        """What every writer adds to the residual stream.

        Args:
            window: the tokens that are returned.
        """
        return self._streams(ids, window)[0]

    def gradients(
        self,
        ids: Ids,
        metric: Metric,
        change: "dict[str, Callable[..., Tensor]] | None" = None,
        window: Window = ALL,
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "readers batch some d_model"]]:
        """The metric of each row, and its derivative with respect to the input of each reader.

        Args:
            metric: what is differentiated.
            change: hooks that change the run, by their TransformerLens names.
            window: the tokens at which derivatives are taken.
        """
        leaves: dict[tuple[int, str], Tensor] = {}

        def leaf(at: tuple[int, str]) -> Callable[..., Tensor]:
            def hook(value: Tensor, **_: Any) -> Tensor:
                leaves[at] = torch.zeros_like(value[:, slice(*window)], requires_grad=True)
                value = value.clone()
                value[:, slice(*window)] += leaves[at]
                return value

            return hook

        hooks = [*(change or {}).items(), *((name, leaf(at)) for at, name in self._readers())]
        with torch.enable_grad(), self.bridge.hooks(fwd_hooks=hooks):
            values = metric(self.logits(ids))
            found = torch.autograd.grad(values.sum(), list(leaves.values()), materialize_grads=True)
        parts = [grad if at[1] in "qkv" else grad.unsqueeze(2) for at, grad in zip(leaves, found, strict=True)]
        return values.detach(), torch.cat(parts, 2).movedim(2, 0)

    @torch.no_grad()
    def cut(
        self,
        ids: Ids,
        other: Ids,
        keep: Bool[Tensor, "batch writers readers"] | Bool[Tensor, "writers readers"],
        window: Window = ALL,
    ) -> Float[Tensor, "batch pos vocab"]:
        """The logits of a run in which every edge that is not kept carries its activation from another text.

        Cutting an edge changes what later writers write, as it would in the model.

        Args:
            other: token ids of the other texts, of the same shape. If no edge is kept, the result is their logits.
            keep: the edges that are kept, for all rows together or for each row.
            window: the tokens at which edges are cut; at the others all edges are kept.
        """
        return self.mixed(ids, *self._streams(other), keep, window)[0]

    @torch.no_grad()
    def along(self, ids: Ids, other: Ids, path: Sequence[tuple[int, int]]) -> Float[Tensor, "batch pos vocab"]:
        """The logits of a run that another text affects along one path only (path patching, Wang et al., 2211.00593).

        Each edge carries what its writer makes of the edge before it; everything else is as for ``ids``.

        Args:
            other: token ids of the other texts, of the same shape.
            path: the row and column of each edge; each reader is an input of the next writer.
        """
        own, seen = self._streams(ids)
        theirs = self.written(other)
        logits = self.logits(ids)
        for row, column in path:
            keep = self.graph.edges.clone()
            keep[row, column] = False
            brought = own.clone()
            brought[row] = theirs[row]
            after = {
                at: stream + (theirs[row] - own[row]) if row < self._before(at) else stream
                for at, stream in seen.items()
            }
            logits, theirs = self.mixed(ids, brought, after, keep)
        return logits

    @torch.no_grad()
    def mixed(
        self,
        ids: Ids,
        theirs: Written,
        seen: dict[tuple[int, str], Tensor],
        keep: Bool[Tensor, "batch writers readers"] | Bool[Tensor, "writers readers"],
        window: Window = ALL,
    ) -> tuple[Float[Tensor, "batch pos vocab"], Written]:
        """A run in which every edge that is not kept carries given values.

        Args:
            theirs: what each writer contributes along edges that are not kept.
            seen: what each slot would read if no edge were kept.
            keep: the edges that are kept, for all rows together or for each row.
            window: the tokens at which edges are cut; at the others all edges are kept.

        Returns:
            The logits, and what each writer writes in this run.
        """
        keep = (keep if keep.dim() == 3 else keep.expand(len(ids), -1, -1)).to(self.model.dtype)
        keep = keep.to(ids.device)
        inside = torch.zeros(ids.shape[1], dtype=torch.bool, device=ids.device)
        inside[slice(*window)] = True
        apart: list[Tensor] = []

        def wrote(value: Tensor, **_: Any) -> None:
            for each in value.unbind(2) if value.dim() == 4 else [value]:
                apart.append(each - theirs[len(apart)])

        def reads(at: tuple[int, str]) -> Callable[..., Tensor]:
            def hook(value: Tensor, **__: Any) -> Tensor:
                some = keep[:, : len(apart), self.graph.columns(*at)]
                kept = torch.einsum("bsr,sbpd->bprd", some, torch.stack(apart))
                made = seen[at].unsqueeze(2) + kept
                made = made if at[1] in "qkv" else made.squeeze(2)
                return torch.where(inside.view(1, -1, *[1] * (made.dim() - 2)), made, value)

            return hook

        hooks = [*((name, wrote) for name in self._writers()), *((name, reads(at)) for at, name in self._readers())]
        with self.bridge.hooks(fwd_hooks=hooks):
            logits = self.logits(ids)
        return logits, torch.stack(apart) + theirs

    def _streams(self, ids: Ids, window: Window = ALL) -> tuple[Written, dict[tuple[int, str], Tensor]]:
        """What each writer writes, and what each slot of a block reads (the same for all heads of the block)."""
        written: list[Tensor] = []
        seen: dict[tuple[int, str], Tensor] = {}

        def wrote(value: Tensor, **_: Any) -> None:
            value = value[:, slice(*window)]
            written.extend(value.unbind(2) if value.dim() == 4 else [value])

        def reads(at: tuple[int, str]) -> Callable[..., None]:
            def hook(value: Tensor, **_: Any) -> None:
                seen[at] = value[:, :, 0] if at[1] in "qkv" else value

            return hook

        hooks = [*((name, wrote) for name in self._writers()), *((name, reads(at)) for at, name in self._readers())]
        with self.bridge.hooks(fwd_hooks=hooks):
            self.logits(ids)
        return torch.stack(written), seen

    def _before(self, at: tuple[int, str]) -> int:
        """The number of writers that come before a slot of a block."""
        return self.graph.seen_by(self.graph.readers[self.graph.columns(*at).start])

    def _writers(self) -> list[str]:
        names = ["blocks.0.hook_resid_pre"]
        for layer in range(self.graph.n_layers):
            names += [f"blocks.{layer}.attn.hook_result", f"blocks.{layer}.hook_mlp_out"]
        return names

    def _readers(self) -> list[tuple[tuple[int, str], str]]:
        found = []
        for layer in range(self.graph.n_layers):
            found += [((layer, slot), f"blocks.{layer}.{name}") for slot, name in _SLOTS.items()]
        last = self.graph.n_layers
        return [*found, ((last, LOGITS), f"blocks.{last - 1}.hook_resid_post")]

    @torch.no_grad()
    def _check(self) -> None:
        some = torch.arange(12, device=self.model.device).view(2, 6) % self.model.hf.config.get_text_config().vocab_size
        written, seen = self._streams(some)
        allowed = _ROUNDINGS * torch.finfo(written.dtype).eps
        for at, stream in seen.items():
            before = written[: self._before(at)].float()
            left = stream.float() - before.sum(0)
            if (left - left[:1, :1]).abs().max() > allowed * before.abs().sum(0).max():
                raise NotApplicable(
                    f"what attention and MLPs of {self.model.name} write does not add up to what layer {at[0]} reads, "
                    "because a norm follows them or both read the same stream; its edges cannot be separated"
                )
