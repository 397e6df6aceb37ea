"""A model whose edges can be read, differentiated and cut, on top of TransformerLens' bridge."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probe.circuits.edges.bridge import hooked, one_block_at_a_time
from probe.circuits.edges.graph import LOGITS, Graph
from probe.circuits.edges.streams import OutputWeights, Streams
from probe.errors import NotApplicable
from probe.models import Model, Site, check_frequencies, place

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Ids = Int[Tensor, "batch pos"]
Written = Float[Tensor, "writers batch some d_model"]
"""What each writer adds to the residual stream, at all tokens or those of a window."""
Metric = Callable[[Float[Tensor, "batch some vocab"]], Float[Tensor, " batch"]]
"""Computes one number for each row from the logits of its last token."""
At = tuple[int, str]
"""A slot of a block: the layer, and ``q``, ``k``, ``v``, ``mlp`` or ``logits``."""
Seen = Callable[[At], Float[Tensor, "batch some d_model"]]
"""What each slot of a block reads."""

Window = tuple[int, int | None]
"""Some tokens of a text, as the ends of a slice: ``(0, None)`` is all of them, ``(-64, None)`` the last 64."""
ALL: Window = (0, None)

_SLOTS = {"q": "hook_q_input", "k": "hook_k_input", "v": "hook_v_input", "mlp": "hook_mlp_in"}
_ROUNDINGS = 8
"""Relative tolerance for the sum of the writers against the residual stream, up to a constant, in units of the dtype's
machine epsilon. It is relative to the sum of the writers' absolute values, which bounds their rounding errors."""
_START = "blocks.0.hook_resid_pre"
_MOST_ROOM = 2**26
"""The most bytes that projected writers, or gradients that wait for them, take; more would not be faster."""
_FEW = 8
"""The most rows of a pass; more would not be much faster."""
_COPIES = 8
"""Tensors of the size of the inputs of a block's readers that a backward pass through the block takes."""


class EdgeLens:
    """A model whose edges can each be read, differentiated and cut. It shares the model's weights.

    Attributes:
        model: the model that it was made from.
        bridge: TransformerLens' ``TransformerBridge`` on the model's weights.
        graph: the model's writers, readers and edges.

    Args:
        model: a decoder that TransformerLens supports and whose blocks add attention and then MLP to the stream.

    Raises:
        NotApplicable: if a layer has no attention heads (Qwen3-Next), attention and MLP read the same stream
            (GPT-NeoX), TransformerLens does not support the model, or its writers do not add up to the stream, because
            a norm (Gemma 2 and 3) or a factor (Granite) comes after attention or MLP.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        for layer in range(model.n_layers):
            for kind in ("z", "resid_mid", "mlp_out"):
                place(model.hf, Site(kind, layer))
        bridge = model.lens(shared=True)
        try:
            bridge.set_use_split_qkv_input(True)
            bridge.set_use_hook_mlp_in(True)
        except (ValueError, NotImplementedError, AttributeError) as error:
            raise NotApplicable(f"TransformerLens cannot separate the heads of {model.name}: {error}") from error
        self.bridge: TransformerBridge = bridge.eval().requires_grad_(False)
        self._hooked = partial(hooked, bridge, dict(bridge.hook_dict))
        cfg: Any = bridge.cfg
        groups = getattr(cfg, "n_key_value_heads", None) or cfg.n_heads
        self.graph = Graph(cfg.n_layers, cfg.n_heads, groups)
        self._check()

    def logits(self, ids: Ids, last: int = 0) -> Float[Tensor, "batch some vocab"]:
        """The logits of the model itself.

        Args:
            last: the number of tokens at the end whose logits are computed; 0 for all.
        """
        check_frequencies(self.model.hf, ids.shape[1])
        some = {"logits_to_keep": last} if last else {}
        return self.bridge(ids, return_type="logits", use_cache=False, **some)

    @property
    def room(self) -> int:
        """The bytes that projected writers, or gradients that wait for them, may take."""
        return min(self.model.budget // 8, _MOST_ROOM)

    @property
    def kept(self) -> int:
        """The bytes that all projected writers may take if they are kept instead of projected again."""
        return self.model.budget // 8

    def rows_that_fit(self, width: int) -> int:
        """The number of texts that fit into the model's budget in one pass, at least 1.

        Args:
            width: the number of tokens of a text.
        """
        config: Any = self.bridge.cfg
        graph, size = self.graph, self.model.dtype.itemsize
        block = _COPIES * (graph.n_heads + 2 * graph.n_groups + 2) * config.d_model * size
        attention = 4 * graph.n_heads * width * 4
        kept = 6 * graph.n_layers * config.d_model * size
        return max(1, self.model.budget // 2 // (width * (block + attention + kept)))

    def few_rows(self, width: int) -> int:
        """As :meth:`rows_that_fit`, but at most 8, so that rounding rarely depends on the memory that is free.

        Args:
            width: the number of tokens of a text.
        """
        return min(_FEW, self.rows_that_fit(width))

    @torch.no_grad()
    def streams(self, ids: Ids, window: Window = ALL) -> Streams:
        """What every writer adds to the residual stream, heads before the output projection.

        Args:
            window: the tokens that are kept.
        """
        return self._recorded(ids, window)[0]

    @torch.no_grad()
    def written(self, ids: Ids, window: Window = ALL) -> Written:
        """What every writer adds to the residual stream, in one tensor; its size is writers × tokens × width.

        Args:
            window: the tokens that are returned.
        """
        return self.streams(ids, window).all_rows()

    @torch.no_grad()
    def read(self, ids: Ids, names: Sequence[str]) -> dict[str, Tensor]:
        """Values of a run at some of TransformerLens' hooks.

        Args:
            names: their TransformerLens names.
        """
        found: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[..., None]:
            return lambda value, **_: found.__setitem__(name, value)

        with self._hooked([(name, keep(name)) for name in names]):
            self.logits(ids, 1)
        return found

    def slopes(
        self,
        ids: Ids,
        metric: Metric,
        receive: Callable[[At, Float[Tensor, "batch some readers d_model"]], None],
        change: "dict[str, Callable[..., Tensor]] | None" = None,
        window: Window = ALL,
    ) -> Float[Tensor, " batch"]:
        """Differentiate the metric with respect to the input of each reader, and hand over each slot's derivatives.

        Each block is run again when the backward pass reaches it, so that only one block's graph is held.

        Args:
            metric: what is differentiated.
            receive: called with each slot and its derivatives, from the last block to the first; not called for slots
                that the metric does not depend on.
            change: hooks that change the run, by their TransformerLens names.
            window: the tokens at which derivatives are taken.

        Returns:
            The metric of each row.
        """

        def begin(value: Tensor, **_: Any) -> Tensor:
            return value.detach().requires_grad_()

        def watch(at: At) -> Callable[..., None]:
            def arrived(grad: Tensor) -> None:
                some = grad.detach()[:, slice(*window)]
                receive(at, some if at[1] in "qkv" else some.unsqueeze(2))

            def hook(value: Tensor, **_: Any) -> Any:
                own = value.view_as(value)  # an MLP's input is the stream itself, whose derivative is another
                own.register_hook(arrived)
                return own

            return hook

        hooks = [*(change or {}).items(), (_START, begin), *((name, watch(at)) for at, name in self._readers())]
        with torch.enable_grad(), one_block_at_a_time(self.bridge.blocks), self._hooked(hooks):
            values = metric(self.logits(ids, 1))
            values.sum().backward()
        return values.detach()

    def gradients(
        self,
        ids: Ids,
        metric: Metric,
        change: "dict[str, Callable[..., Tensor]] | None" = None,
        window: Window = ALL,
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "readers batch some d_model"]]:
        """The metric of each row, and its derivative with respect to the input of each reader, in one tensor.

        Args:
            metric, change, window: as in :meth:`slopes`, which holds one block's derivatives at a time.
        """
        some = len(range(*slice(*window).indices(ids.shape[1])))
        shape = (len(self.graph.readers), len(ids), some, int(self.bridge.cfg.d_model))
        found = torch.zeros(shape, dtype=self.model.dtype, device=ids.device)

        def receive(at: At, grad: Tensor) -> None:
            found[self.graph.columns(*at)] = grad.movedim(2, 0)

        return self.slopes(ids, metric, receive, change, window), found

    @torch.no_grad()
    def cut(
        self,
        ids: Ids,
        other: Ids,
        keep: Bool[Tensor, "batch writers readers"] | Bool[Tensor, "writers readers"],
        window: Window = ALL,
        last: int = 0,
    ) -> Float[Tensor, "batch some vocab"]:
        """The logits of a run in which every edge that is not kept carries its activation from another text.

        Cutting an edge changes what later writers write, as it would in the model.

        Args:
            other: token ids of the other texts, of the same shape. If no edge is kept, the result is their logits.
            keep: the edges that are kept, for all rows together or for each row.
            window: the tokens at which edges are cut; at the others all edges are kept.
            last: the number of tokens at the end whose logits are computed; 0 for all.
        """
        theirs, seen = self._recorded(other, window)
        return self._mixed(ids, theirs, seen, keep, window, last)[0]

    @torch.no_grad()
    def along(
        self, ids: Ids, other: Ids, path: Sequence[tuple[int, int]], last: int = 0
    ) -> Float[Tensor, "batch some vocab"]:
        """The logits of a run that another text affects along one path only (path patching, Wang et al., 2211.00593).

        Each edge carries what its writer makes of the edge before it; everything else is as for ``ids``.

        Args:
            other: token ids of the other texts, of the same shape.
            path: the row and column of each edge; each reader is an input of the next writer.
            last: the number of tokens at the end whose logits are computed; 0 for all.
        """
        own, seen = self._recorded(ids, ALL)
        theirs = self.streams(other)
        logits = self.logits(ids, last)
        for row, column in path:
            keep = self.graph.edges.clone()
            keep[row, column] = False
            shift = theirs.row(row) - own.row(row)

            def after(at: At, row: int = row, shift: Tensor = shift) -> Tensor:
                return seen(at) + shift if row < self._before(at) else seen(at)

            logits, theirs = self._mixed(ids, own.with_row(row, theirs), after, keep, ALL, last)
        return logits

    def _mixed(
        self,
        ids: Ids,
        theirs: Streams,
        seen: Seen,
        keep: Bool[Tensor, "batch writers readers"] | Bool[Tensor, "writers readers"],
        window: Window,
        last: int,
    ) -> tuple[Float[Tensor, "batch some vocab"], Streams]:
        """A run in which every edge that is not kept carries given values.

        Args:
            theirs: what each writer contributes along edges that are not kept.
            seen: what each slot would read if no edge were kept.
            keep: the edges that are kept, for all rows together or for each row.
            window: the tokens at which edges are cut, to which ``theirs`` and ``seen`` are restricted.
            last: the number of tokens at the end whose logits are computed; 0 for all.

        Returns:
            The logits, and what each writer writes in this run in the window.
        """
        keep = (keep if keep.dim() == 3 else keep.expand(len(ids), -1, -1)).to(ids.device, self.model.dtype)
        apart = Streams(torch.zeros_like(theirs.embed), [], [], theirs.weights, theirs.room).remembering(self.kept)
        made: dict[At, Tensor] = {}

        def wrote(value: Tensor, name: str) -> None:
            nonlocal apart
            value = value[:, slice(*window)]
            if name == _START:
                apart = replace(apart, embed=value - theirs.embed)
            elif name.endswith("hook_z"):
                apart.heads.append(value - theirs.heads[len(apart.heads)])
            else:
                apart.mlp.append(value - theirs.mlp[len(apart.mlp)])

        def read(slots: Sequence[At]) -> None:
            """Compute what several slots read that come after the same writers."""
            before, columns = self._before(slots[0]), [self.graph.columns(*at) for at in slots]
            readers = slice(columns[0].start, columns[-1].stop)
            total = seen(slots[0]).unsqueeze(1).repeat(1, readers.stop - readers.start, 1, 1)
            for rows, piece, values in apart.pieces(slice(0, before)):
                added = keep[:, rows, readers].transpose(1, 2) @ values.transpose(0, 1).flatten(2)
                total[:, :, piece] += added.unflatten(2, values.shape[2:])
            for at, column in zip(slots, columns, strict=True):
                made[at] = total[:, column.start - readers.start : column.stop - readers.start].transpose(1, 2)

        def reads(at: At) -> Callable[..., Tensor]:
            def hook(value: Tensor, **__: Any) -> Tensor:
                if at not in made:
                    read([(at[0], slot) for slot in "qkv"] if at[1] in "qkv" else [at])
                value = value.clone()
                value[:, slice(*window)] = made[at] if at[1] in "qkv" else made[at].squeeze(2)
                del made[at]
                return value

            return hook

        def writes(name: str) -> Callable[..., None]:
            return lambda value, **_: wrote(value, name)

        hooks = [*((name, writes(name)) for name in self._writers())]
        hooks += [(name, reads(at)) for at, name in self._readers()]
        with self._hooked(hooks):
            logits = self.logits(ids, last)
        return logits, apart + theirs

    def _recorded(self, ids: Ids, window: Window = ALL) -> tuple[Streams, Seen]:
        """What each writer writes, and what each slot of a block reads (the same for all heads of the block)."""
        found: dict[str, Tensor] = {}
        seen: dict[At, Tensor] = {}

        def within(value: Tensor) -> Tensor:
            # A copy, because a view would hold all tokens.
            return value if window == ALL else value[:, slice(*window)].clone()

        def wrote(name: str) -> Callable[..., None]:
            return lambda value, **_: found.__setitem__(name, within(value))

        def reads(at: At) -> Callable[..., None]:
            def hook(value: Tensor, **_: Any) -> None:
                seen[at] = within(value[:, :, 0].clone() if at[1] == "q" else value)

            return hook

        readers = [(at, name) for at, name in self._readers() if at[1] not in "kv"]
        hooks = [*((name, wrote(name)) for name in self._writers()), *((name, reads(at)) for at, name in readers)]
        with self._hooked(hooks):
            self.logits(ids, 1)
        _, *rest = self._writers()
        streams = Streams(
            found[_START],
            [found[name] for name in rest[::2]],
            [found[name] for name in rest[1::2]],
            [self._output_weights(layer) for layer in range(self.graph.n_layers)],
            self.room,
        )
        return streams, lambda at: seen[at[0], "q" if at[1] in "qkv" else at[1]]

    def _output_weights(self, layer: int) -> OutputWeights:
        """The output projection of a block's heads, as a view; GPT-2's Conv1D stores its weight transposed."""
        module: Any = self.bridge.blocks[layer].attn.o.original_component
        weight = module.weight.detach() if type(module).__name__ == "Conv1D" else module.weight.detach().T
        return weight.view(self.graph.n_heads, -1, weight.shape[-1])

    def _before(self, at: At) -> int:
        """The number of writers that come before a slot of a block."""
        return self.graph.seen_by(self.graph.readers[self.graph.columns(*at).start])

    def _writers(self) -> list[str]:
        names = [_START]
        for layer in range(self.graph.n_layers):
            names += [f"blocks.{layer}.attn.hook_z", f"blocks.{layer}.hook_mlp_out"]
        return names

    def _readers(self) -> list[tuple[At, str]]:
        found = []
        for layer in range(self.graph.n_layers):
            found += [((layer, slot), f"blocks.{layer}.{name}") for slot, name in _SLOTS.items()]
        last = self.graph.n_layers
        return [*found, ((last, LOGITS), f"blocks.{last - 1}.hook_resid_post")]

    @torch.no_grad()
    def _check(self) -> None:
        some = torch.arange(12, device=self.model.device).view(2, 6) % self.model.hf.config.get_text_config().vocab_size
        streams, seen = self._recorded(some)
        written = streams.all_rows()
        allowed = _ROUNDINGS * torch.finfo(written.dtype).eps
        for at, _ in self._readers():
            stream = seen(at)
            before = written[: self._before(at)].float()
            left = stream.float() - before.sum(0)
            if (left - left[:1, :1]).abs().max() > allowed * before.abs().sum(0).max():
                raise NotApplicable(
                    f"what attention and MLPs of {self.model.name} write does not add up to what layer {at[0]} reads, "
                    "because a norm or a factor follows them; its edges cannot be separated"
                )
