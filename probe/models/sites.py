"""A site: the name of a place in the network, and where that place is in a given model.

Names are those of `KINDS` with a layer, ``resid_post.2``, or without one, ``embed``. Whatever has no such name is
reached by its module's dotted path: ``model.layers.2.self_attn.q_norm`` is what that module returns,
``model.layers.2.self_attn.q_norm:input`` what it is given.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from probe.config import nearest
from probe.errors import ProbeError
from probe.models.architectures import ARCHITECTURES, KINDS, Heads, Place, lacks

_SIDES = ("input", "output")


@dataclass(frozen=True)
class Site:
    """A named place in the network: a kind, and a 0-based layer where the kind has one; or a module's path.

    Raises:
        ProbeError: for an unknown kind, or a layer where none belongs or none where one does.

    >>> Site.parse("resid_post.2")
    Site(kind='resid_post', layer=2)
    >>> str(Site("resid_post", 2)), Site("resid_post", 2).lens
    ('resid_post.2', 'blocks.2.hook_resid_post')
    >>> Site.parse("model.layers.2.mlp.act_fn").is_module
    True
    """

    kind: str
    layer: int | None = None

    def __post_init__(self) -> None:
        if self.is_module:
            path, _, side = self.kind.partition(":")
            if self.layer is not None or not path or side not in ("", *_SIDES):
                raise ProbeError(f"'{self}' is no module path; write model.layers.2.mlp, or model.layers.2.mlp:input")
            return
        if self.kind not in KINDS:
            raise ProbeError(f"unknown kind of site '{self.kind}'; {nearest(self.kind, KINDS)}")
        if KINDS[self.kind].layered and (self.layer is None or self.layer < 0):
            raise ProbeError(f"site '{self.kind}' needs a layer, counted from 0: {self.kind}.0")
        if not KINDS[self.kind].layered and self.layer is not None:
            raise ProbeError(f"site '{self.kind}' has no layer; write just {self.kind}")

    @classmethod
    def parse(cls, text: "str | Site") -> "Site":
        """The site that ``resid_post.2``, ``embed``, ``blocks.2.hook_resid_post`` or a module's path names.

        Raises:
            ProbeError: if the text names none.
        """
        if isinstance(text, Site):
            return text
        if (found := _of_lens(text)) is not None:
            return found
        kind, dot, layer = text.partition(".")
        number = re.fullmatch(r"-?\d+", layer)
        if ":" in text or (dot and kind not in KINDS and not number):
            return cls(text)
        if dot and not number:
            raise ProbeError(f"'{text}' is no site; write a kind and a layer, as resid_post.2, or a module's path")
        return cls(kind, int(layer) if dot else None)

    @property
    def is_module(self) -> bool:
        """Whether it is a module's path rather than a name of the table."""
        return "." in self.kind or ":" in self.kind

    @property
    def by_token(self) -> bool:
        """Whether it has one state a token, on the second axis; of a module's path that is taken for granted."""
        return self.is_module or KINDS[self.kind].by_token

    def __str__(self) -> str:
        return self.kind if self.layer is None else f"{self.kind}.{self.layer}"

    @property
    def lens(self) -> str:
        """The hook of this site in TransformerLens.

        Raises:
            ProbeError: if the site is a module's path.
        """
        if self.is_module:
            raise ProbeError(f"TransformerLens has no hook of its own for {self}; use a named site (probe sites)")
        return KINDS[self.kind].lens.replace("{i}", str(self.layer))


def _of_lens(text: str) -> Site | None:
    """The site that TransformerLens calls so."""
    for kind, about in KINDS.items():
        if found := re.fullmatch(re.escape(about.lens).replace(re.escape("{i}"), r"(\d+)"), text):
            return Site(kind, int(found[1]) if about.layered else None)
    return None


def place(hf: PreTrainedModel, site: str | Site) -> Place:
    """Where a site is in this model.

    Raises:
        ProbeError: if the model has no such layer or module, or its architecture is not in the table or lacks such a
            site.
    """
    site = Site.parse(site)
    return _module_place(hf, site) if site.is_module else named_place(hf.config, site)


def named_place(config: Any, site: Site) -> Place:
    """As `place`, for a named site of a model of which only the Hugging Face config is there."""
    places, config = _places(config), config.get_text_config()
    if why := lacks(config).get(site.kind):
        raise ProbeError(f"this {config.model_type} model has no site '{site}': {why}")
    if site.kind not in places:
        raise ProbeError(f"{config.model_type} models have no site '{site.kind}'; they have {', '.join(places)}")
    if site.layer is not None and site.layer >= config.num_hidden_layers:
        raise ProbeError(f"there is no {site}: this model has layers 0 to {config.num_hidden_layers - 1}")
    found = places[site.kind]
    return replace(found, module=found.module.replace("{i}", str(site.layer)), heads=Heads.of(config))


def all_sites(hf: PreTrainedModel, *kinds: str) -> list[Site]:
    """Every site of this model, or those of these kinds, kind by kind.

    Raises:
        ProbeError: if its architecture is not in the table.
    """
    config = hf.config.get_text_config()
    there = [kind for kind in KINDS if kind in _places(hf.config) and kind not in lacks(config)]
    layers = range(config.num_hidden_layers)
    wanted = [kind for kind in there if not kinds or kind in kinds]
    return [Site(kind, i) for kind in wanted for i in (layers if KINDS[kind].layered else [None])]


def blocks(hf: PreTrainedModel) -> nn.ModuleList:
    """The blocks of this model, in order.

    Raises:
        ProbeError: if its architecture is not in the table.
    """
    found = hf.get_submodule(_places(hf.config)["resid_post"].module.removesuffix(".{i}"))
    assert isinstance(found, nn.ModuleList)
    return found


def _places(config: Any) -> dict[str, Place]:
    architecture = config.model_type
    if architecture not in ARCHITECTURES:
        raise ProbeError(
            f"the sites of '{architecture}' models are not known; those of {', '.join(ARCHITECTURES)} are. "
            "Any model's modules can be read and written by their path, as model.layers.2.mlp"
        )
    return ARCHITECTURES[architecture]


def _module_place(hf: PreTrainedModel, site: Site) -> Place:
    path, _, side = site.kind.partition(":")
    modules = [name for name, _ in hf.named_modules() if name]
    if path not in modules:
        raise ProbeError(f"there is no module '{path}' in this model; {nearest(path, modules)}")
    return Place(path, "input" if side == "input" else "output")
