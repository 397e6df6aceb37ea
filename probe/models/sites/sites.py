"""Sites: the names of places in the network, and the place of a site in a given model.

A name is a kind of `KINDS`, with a layer (``resid_post.2``) or without (``embed``). Any other module is a site by its
dotted path: ``model.layers.2.self_attn.q_norm`` is its output, ``model.layers.2.self_attn.q_norm:input`` its input.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from probe.config import nearest
from probe.errors import NotApplicable, ProbeError
from probe.models.sites.architectures import ARCHITECTURES, KINDS, Heads, Place, lacks

_SIDES = ("input", "output")


@dataclass(frozen=True)
class Site:
    """A named place in the network.

    Attributes:
        kind: a kind of `KINDS`, or the dotted path of a module.
        layer: the 0-based layer; None for a kind without layers and for a module's path.

    Raises:
        ProbeError: for an unknown kind, a missing layer, or a layer where the kind has none.

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
                raise ProbeError(f"'{self}' is not a module path; write model.layers.2.mlp or model.layers.2.mlp:input")
            return
        if self.kind not in KINDS:
            raise ProbeError(f"unknown kind of site '{self.kind}'; {nearest(self.kind, KINDS)}")
        if KINDS[self.kind].layered and (self.layer is None or self.layer < 0):
            raise ProbeError(f"site '{self.kind}' needs a layer, counted from 0; write {self.kind}.0")
        if not KINDS[self.kind].layered and self.layer is not None:
            raise ProbeError(f"site '{self.kind}' has no layer; write just {self.kind}")

    @classmethod
    def parse(cls, text: "str | Site") -> "Site":
        """Return the site that a text names.

        Args:
            text: such as ``resid_post.2``, ``embed``, ``blocks.2.hook_resid_post`` or a module's path; a site is
                returned as it is.

        Raises:
            ProbeError: if the text is not the name of a site.
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
            raise ProbeError(f"'{text}' is not a site; write a kind and a layer, as in resid_post.2, or a module path")
        return cls(kind, int(layer) if dot else None)

    @property
    def is_module(self) -> bool:
        """Whether the site is a module's path and not a kind of the table."""
        return "." in self.kind or ":" in self.kind

    @property
    def by_token(self) -> bool:
        """Whether the site has one vector for each token, on its second axis; a module's path is assumed to."""
        return self.is_module or KINDS[self.kind].by_token

    def __str__(self) -> str:
        return self.kind if self.layer is None else f"{self.kind}.{self.layer}"

    @property
    def lens(self) -> str:
        """The name of the site's hook in TransformerLens.

        Raises:
            ProbeError: if the site is a module's path.
        """
        if self.is_module:
            raise ProbeError(f"TransformerLens has no hook for the module {self}; use a site that `probe sites` lists")
        return KINDS[self.kind].lens.replace("{i}", str(self.layer))


def _of_lens(text: str) -> Site | None:
    """The site with this name in TransformerLens."""
    for kind, about in KINDS.items():
        if found := re.fullmatch(re.escape(about.lens).replace(re.escape("{i}"), r"(\d+)"), text):
            return Site(kind, int(found[1]) if about.layered else None)
    return None


def place(hf: PreTrainedModel, site: str | Site) -> Place:
    """Return the place of a site in a model.

    Raises:
        ProbeError: if the model has no such layer or module, or its architecture is not in the table or lacks the site.
    """
    site = Site.parse(site)
    return module_place(hf.named_modules(), site) if site.is_module else named_place(hf.config, site)


def named_place(config: Any, site: Site) -> Place:
    """Return the place of a named site, from the Hugging Face config of a model alone."""
    places, config = _places(config), config.get_text_config()
    if why := lacks(config).get(site.kind):
        raise NotApplicable(f"this {config.model_type} model has no site '{site}': {why}")
    if site.kind not in places:
        raise NotApplicable(f"{config.model_type} models have no site '{site.kind}'; they have {', '.join(places)}")
    if site.layer is not None and site.layer >= config.num_hidden_layers:
        raise ProbeError(f"this model has no site {site}; it has layers 0 to {config.num_hidden_layers - 1}")
    found = places[site.kind]
    return replace(found, module=found.module.replace("{i}", str(site.layer)), heads=Heads.of(config))


def all_sites(hf: PreTrainedModel, *kinds: str) -> list[Site]:
    """Return the sites of a model, kind by kind.

    Args:
        kinds: the kinds of site to return; all if none is given.

    Raises:
        ProbeError: if its architecture is not in the table.
    """
    config = hf.config.get_text_config()
    there = [kind for kind in KINDS if kind in _places(hf.config) and kind not in lacks(config)]
    layers = range(config.num_hidden_layers)
    wanted = [kind for kind in there if not kinds or kind in kinds]
    return [Site(kind, i) for kind in wanted for i in (layers if KINDS[kind].layered else [None])]


def blocks(hf: PreTrainedModel) -> nn.ModuleList:
    """Return the blocks of a model, in order.

    Raises:
        ProbeError: if its architecture is not in the table.
    """
    found = hf.get_submodule(_places(hf.config)["resid_post"].module.removesuffix(".{i}"))
    assert isinstance(found, nn.ModuleList)
    return found


def _places(config: Any) -> dict[str, Place]:
    architecture = config.model_type
    if architecture not in ARCHITECTURES:
        raise NotApplicable(
            f"the sites of '{architecture}' models are not known, only those of {', '.join(ARCHITECTURES)}; "
            "name a module by its path instead, such as model.layers.2.mlp"
        )
    return ARCHITECTURES[architecture]


def module_place(named_modules: Iterable[tuple[str, Any]], site: Site) -> Place:
    """Return the place of a module's path, from the named modules of a model."""
    path, _, side = site.kind.partition(":")
    modules = [name for name, _ in named_modules if name]
    if path not in modules:
        raise ProbeError(f"this model has no module '{path}'; {nearest(path, modules)}")
    return Place(path, "input" if side == "input" else "output")
