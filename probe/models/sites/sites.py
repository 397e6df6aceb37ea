"""Sites: the names of places in the network, and the place of a site in a given model.

A name is a kind of `KINDS`, with a layer (``resid_post.2``) or without (``embed``). Any other module is a site by its
dotted path: ``model.layers.2.self_attn.q_norm`` is its output, ``model.layers.2.self_attn.q_norm:input`` its input.
"""

import re
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from probe.config import nearest
from probe.errors import ProbeError
from probe.models.sites.kinds import KINDS
from probe.models.sites.places import Place
from probe.models.sites.resolved import Resolved

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
            ProbeError: if the site is a module's path, or TransformerLens has no hook for it.
        """
        if self.is_module:
            raise ProbeError(f"TransformerLens has no hook for the module {self}; use a site that `probe sites` lists")
        if (hook := KINDS[self.kind].lens) is None:
            raise ProbeError(f"TransformerLens has no hook for {self}; use a site for which `probe sites` names one")
        return hook.replace("{i}", str(self.layer))


def _of_lens(text: str) -> Site | None:
    """The site with this name in TransformerLens."""
    for kind, about in KINDS.items():
        if about.lens is None:
            continue
        if found := re.fullmatch(re.escape(about.lens).replace(re.escape("{i}"), r"(\d+)"), text):
            return Site(kind, int(found[1]) if about.layered else None)
    return None


def place(hf: PreTrainedModel, site: str | Site) -> Place:
    """Return the place of a site in a model.

    Raises:
        ProbeError: if the model has no such layer or module, or its architecture or this layer lacks the site.
    """
    site = Site.parse(site)
    return module_place(hf, site) if site.is_module else Resolved.of(hf).place(site.kind, site.layer)


def all_sites(hf: PreTrainedModel, *kinds: str) -> list[Site]:
    """Return the sites of a model, kind by kind.

    Args:
        kinds: the kinds of site to return; all if none is given.

    Raises:
        ProbeError: if its architecture is not in the table and a trial finds no residual stream.
    """
    found = Resolved.of(hf)
    wanted = [kind for kind in found.kinds() if not kinds or kind in kinds]
    return [Site(kind, i) for kind in wanted for i in (found.layers(kind) if KINDS[kind].layered else [None])]


def blocks(hf: PreTrainedModel) -> nn.ModuleList:
    """Return the blocks of a model, in order.

    Raises:
        ProbeError: as `all_sites`.
    """
    return Resolved.of(hf).blocks


def module_place(hf: PreTrainedModel, site: Site) -> Place:
    """Return the place of a module's path."""
    path, _, side = site.kind.partition(":")
    modules = [name for name, _ in hf.named_modules() if name]
    if path not in modules:
        raise ProbeError(f"this model has no module '{path}'; {nearest(path, modules)}")
    return Place(path, "input" if side == "input" else "output")
