"""The place of a site in a Hugging Face model: a module, a side of it, and a view of the tensor there."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Heads:
    """The attention heads of a layer; a `View` needs them to find its part of a tensor."""

    n_heads: int
    """Number of query heads."""
    n_kv_heads: int
    """Number of key and value heads."""
    d_head: int
    """Width of the queries and keys of a head."""
    d_value: int
    """Width of the values of a head."""

    @classmethod
    def of(cls, config: Any, layer: int | None = None) -> "Heads":
        """Read the heads from a Hugging Face config.

        Args:
            config: the config of the text model.
            layer: the layer, for models whose layers have other heads (Gemma 4); None for the first.
        """
        if (own := getattr(config, "per_layer_config", None)) is not None:
            config = own[layer or 0]
        n_heads = config.num_attention_heads
        n_kv_heads = getattr(config, "num_key_value_heads", None) or n_heads
        d_head = getattr(config, "head_dim", None) or config.hidden_size // n_heads
        if getattr(config, "kv_lora_rank", None):  # latent attention: its head_dim is that of the rotated part
            return cls(n_heads, n_heads, config.qk_nope_head_dim + config.qk_rope_head_dim, config.v_head_dim)
        return cls(n_heads, n_kv_heads, d_head, d_head)


View = Callable[[Tensor, Heads], Tensor]
"""Returns the site as a view of the module's tensor, so that writing to the site writes to the tensor."""


def by_head(whole: Tensor, heads: Heads) -> Tensor:
    """Queries or keys, head by head."""
    return whole.unflatten(-1, (-1, heads.d_head))


def by_value(whole: Tensor, heads: Heads) -> Tensor:
    """Values or mixes of them, head by head."""
    return whole.unflatten(-1, (-1, heads.d_value))


def third(number: int) -> View:
    """Part ``number`` of queries, keys and values, stored one after the other with as many heads each."""
    return lambda whole, heads: whole.unflatten(-1, (3, -1, heads.d_head))[..., number, :, :]


def third_of_each_head(number: int) -> View:
    """Part ``number`` of queries, keys and values, stored head by head."""
    return lambda whole, heads: whole.unflatten(-1, (-1, 3, heads.d_head))[..., number, :]


def grouped(number: int) -> View:
    """Part ``number`` of all queries, the fewer keys and as many values, stored in this order."""

    def view(whole: Tensor, heads: Heads) -> Tensor:
        sizes = (heads.n_heads, heads.n_kv_heads, heads.n_kv_heads)
        return by_head(whole, heads).narrow(-2, sum(sizes[:number]), sizes[number])

    return view


def without_gate(whole: Tensor, heads: Heads) -> Tensor:
    """The queries, which are stored head by head, each with its gate after it."""
    return whole.unflatten(-1, (-1, 2, heads.d_head))[..., 0, :]


def first_half(whole: Tensor, _: Heads) -> Tensor:
    """The gates, which are stored before what they multiply."""
    return whole.narrow(-1, 0, whole.shape[-1] // 2)


@dataclass(frozen=True)
class Place:
    """The place of a site in a Hugging Face model: the input or the output of a module."""

    module: str
    """Dotted path; ``{i}`` is the layer. In the table of sites it begins at the text decoder, and in the place of a
    single site at the model."""

    side: Literal["input", "output", "pattern"] = "output"
    """``input`` is the module's first argument, ``output`` what it returns, ``pattern`` the attention weights computed
    in it."""

    view: View | None = None
    """Selects and reshapes the part of the tensor that is the site; None for the whole tensor."""

    heads: Heads | None = None
    """The heads of the layer, filled in for the place of a single site."""

    item: int = 0
    """Which tensor is meant, if the module returns several."""

    flat: bool = False
    """Whether the tokens of all rows may be on one axis, as in a mixture of experts."""

    block: str = ""
    """Path of the block whose input has the rows of a flat site, filled in for the place of a single site."""

    scale: str = ""
    """Name in the config of the factor by which the model multiplies the tensor afterwards."""

    times: float = 1.0
    """The factor itself, filled in for the place of a single site."""

    only_read: str = ""
    """Why the site can be read and not edited; empty if it can be edited."""

    def read(self, whole: Tensor, rows: Sequence[int] = ()) -> Tensor:
        """Return the site, as a view of the module's tensor unless the model scales it.

        Args:
            whole: the module's tensor.
            rows: the number of rows and of positions, for a flat site.
        """
        if self.flat and whole.ndim < 3:
            whole = whole.unflatten(0, tuple(rows))
        if self.view is not None:
            assert self.heads is not None
            whole = self.view(whole, self.heads)
        return whole if self.times == 1 else whole * self.times

    def write(self, whole: Tensor, new: Tensor, rows: Sequence[int] = ()) -> Tensor:
        """Return the module's tensor with the site replaced by ``new``; ``whole`` itself is not changed.

        Args:
            whole: the module's tensor.
            new: the new value of the site.
            rows: the number of rows and of positions, for a flat site.
        """
        if self.times != 1:
            back = new / self.times
            if not new.requires_grad:
                # Dividing rounds; what has not been changed must stay what it was, bit for bit.
                back = torch.where(new == self.read(whole, rows), whole.reshape(new.shape), back)
            return back.reshape(whole.shape)
        if self.view is None:
            return new.reshape(whole.shape) if self.flat else new
        changed = whole.clone()
        self.read(changed, rows).copy_(new)
        return changed

    @property
    def is_part(self) -> bool:
        """Whether the module's tensor contains more than this site."""
        return self.view is not None and self.view not in (by_head, by_value)

    @property
    def nnsight(self) -> str:
        """The module's tensor in nnsight: ``model.layers[2].output``; add ``[0]`` where the module returns a tuple."""
        module = re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", self.module)
        if self.side == "pattern":
            return f"{module}.output[1]"
        return f"{module}.{self.side}" + (f"[{self.item}]" if self.item else "")
