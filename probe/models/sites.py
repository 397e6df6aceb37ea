"""The one table of sites: what each place in a network is called here, in the model, in TransformerLens and nnsight.

A kind of site is a line in `KINDS`; where an architecture has it is a line in `ARCHITECTURES`. All else is derived.

``resid_post.i`` is the output of block ``i``, which Hugging Face calls ``hidden_states[i + 1]`` (but for the last
block, whose entry there has gone through the final norm). ``attn_out.i`` and ``mlp_out.i`` are what is *added to the
residual stream*: where a norm follows the attention or the MLP (Gemma 2 and 3), its output. So everywhere here::

    resid_mid.i  = resid_pre.i + attn_out.i
    resid_post.i = resid_mid.i + mlp_out.i
"""

import re
from dataclasses import dataclass
from typing import Literal

from torch import nn
from transformers import PreTrainedModel

from probe._config import nearest
from probe._errors import ProbeError


@dataclass(frozen=True)
class Kind:
    """A kind of site."""

    lens: str
    """Its hook in TransformerLens; ``{i}`` stands for the layer."""

    meaning: str
    """One line for people."""

    @property
    def layered(self) -> bool:
        """Whether every block has one."""
        return "{i}" in self.lens


KINDS = {
    "embed": Kind("hook_embed", "token embedding, scaled as the model does, without positions"),
    "resid_pre": Kind("blocks.{i}.hook_resid_pre", "residual stream that enters block i"),
    "attn_out": Kind("blocks.{i}.hook_attn_out", "what the attention of block i adds to the residual stream"),
    "resid_mid": Kind("blocks.{i}.hook_resid_mid", "residual stream between attention and MLP of block i"),
    "mlp_out": Kind("blocks.{i}.hook_mlp_out", "what the MLP of block i adds to the residual stream"),
    "resid_post": Kind("blocks.{i}.hook_resid_post", "residual stream that leaves block i"),
    "final_norm": Kind("ln_final.hook_out", "output of the last norm, which the unembedding reads"),
}
"""Every kind of site, in the order in which a forward pass meets them."""


@dataclass(frozen=True)
class Place:
    """Where a site is in a Hugging Face model: going into or coming out of a module."""

    module: str
    """Dotted path from the model; ``{i}`` stands for the layer until the place is that of one site."""

    side: Literal["input", "output"] = "output"
    """``input``: the module's first argument. ``output``: what it returns; of a tuple, the first."""

    @property
    def nnsight(self) -> str:
        """How nnsight writes it, as ``model.layers[2].output``; add ``[0]`` where the module returns a tuple."""
        return re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", self.module) + f".{self.side}"


_LLAMA = {
    "embed": Place("model.embed_tokens"),
    "resid_pre": Place("model.layers.{i}", "input"),
    "attn_out": Place("model.layers.{i}.self_attn"),
    "resid_mid": Place("model.layers.{i}.post_attention_layernorm", "input"),
    "mlp_out": Place("model.layers.{i}.mlp"),
    "resid_post": Place("model.layers.{i}"),
    "final_norm": Place("model.norm"),
}
_GEMMA = _LLAMA | {  # norms before and after both halves of a block
    "attn_out": Place("model.layers.{i}.post_attention_layernorm"),
    "resid_mid": Place("model.layers.{i}.pre_feedforward_layernorm", "input"),
    "mlp_out": Place("model.layers.{i}.post_feedforward_layernorm"),
}
_GPT2 = {
    "embed": Place("transformer.wte"),
    "resid_pre": Place("transformer.h.{i}", "input"),
    "attn_out": Place("transformer.h.{i}.attn"),
    "resid_mid": Place("transformer.h.{i}.ln_2", "input"),
    "mlp_out": Place("transformer.h.{i}.mlp"),
    "resid_post": Place("transformer.h.{i}"),
    "final_norm": Place("transformer.ln_f"),
}
ARCHITECTURES = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "gpt2": _GPT2,
}
"""Hugging Face ``model_type`` to the place of each kind."""


@dataclass(frozen=True)
class Site:
    """A named place in the network: a kind, and a 0-based layer where the kind has one.

    Raises:
        ProbeError: for an unknown kind, or a layer where none belongs or none where one does.

    >>> Site.parse("resid_post.2")
    Site(kind='resid_post', layer=2)
    >>> str(Site("resid_post", 2)), Site("resid_post", 2).lens
    ('resid_post.2', 'blocks.2.hook_resid_post')
    """

    kind: str
    layer: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ProbeError(f"unknown kind of site '{self.kind}'; {nearest(self.kind, KINDS)}")
        if KINDS[self.kind].layered and (self.layer is None or self.layer < 0):
            raise ProbeError(f"site '{self.kind}' needs a layer, counted from 0: {self.kind}.0")
        if not KINDS[self.kind].layered and self.layer is not None:
            raise ProbeError(f"site '{self.kind}' has no layer; write just {self.kind}")

    @classmethod
    def parse(cls, text: "str | Site") -> "Site":
        """The site that ``resid_post.2`` or ``embed`` names; a site is given back as it is.

        Raises:
            ProbeError: if the text names none.
        """
        if isinstance(text, Site):
            return text
        kind, dot, layer = text.partition(".")
        if dot and not re.fullmatch(r"-?\d+", layer):
            raise ProbeError(f"'{text}' is no site; write a kind and a layer, as resid_post.2")
        return cls(kind, int(layer) if dot else None)

    def __str__(self) -> str:
        return self.kind if self.layer is None else f"{self.kind}.{self.layer}"

    @property
    def lens(self) -> str:
        """The hook of this site in TransformerLens."""
        return KINDS[self.kind].lens.replace("{i}", str(self.layer))


def place(hf: PreTrainedModel, site: str | Site) -> Place:
    """Where a site is in this model.

    Raises:
        ProbeError: if the model has no such layer, or its architecture is not in the table or lacks such a site.
    """
    site = Site.parse(site)
    places = _places(hf)
    if site.kind not in places:
        raise ProbeError(f"{hf.config.model_type} models have no site '{site.kind}'; they have {', '.join(places)}")
    n_layers = hf.config.get_text_config().num_hidden_layers
    if site.layer is not None and site.layer >= n_layers:
        raise ProbeError(f"there is no {site}: this model has layers 0 to {n_layers - 1}")
    found = places[site.kind]
    return Place(found.module.replace("{i}", str(site.layer)), found.side)


def all_sites(hf: PreTrainedModel) -> list[Site]:
    """Every site of this model, kind by kind.

    Raises:
        ProbeError: if its architecture is not in the table.
    """
    layers = range(hf.config.get_text_config().num_hidden_layers)
    return [Site(kind, i) for kind in _places(hf) for i in (layers if KINDS[kind].layered else [None])]


def blocks(hf: PreTrainedModel) -> nn.ModuleList:
    """The blocks of this model, in order.

    Raises:
        ProbeError: if its architecture is not in the table.
    """
    found = hf.get_submodule(_places(hf)["resid_post"].module.removesuffix(".{i}"))
    assert isinstance(found, nn.ModuleList)
    return found


def _places(hf: PreTrainedModel) -> dict[str, Place]:
    architecture = hf.config.model_type
    if architecture not in ARCHITECTURES:
        raise ProbeError(f"the sites of '{architecture}' models are not known; those of {', '.join(ARCHITECTURES)} are")
    return ARCHITECTURES[architecture]
