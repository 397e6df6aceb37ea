"""SAEs and transcoders in one form: where a dictionary reads, where its latents write, and what each latent writes.

A transcoder reads what goes into a block's MLP and predicts what comes out of it (Dunefsky et al., 2406.11944). Its
latents can be scored and compared like those of an SAE, but it cannot stand in for the state that it reads.
"""

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from probe.adapters.sae.names import is_release
from probe.adapters.sae.plain import check_sae, name_of, said_of, site_at, warn_of_another_model
from probe.adapters.sae.reading import check_tensors, load_sae, made_of, read_folder
from probe.adapters.sae.releases import read_release
from probe.errors import ProbeError
from probe.models import Model, Site, place

if TYPE_CHECKING:
    from sae_lens import SAE

_TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
_MLP = re.compile(r"blocks\.(\d+)\.mlp\.hook_(in|out)")
_BEFORE_NORM = re.compile(r"blocks\.(\d+)\.hook_mlp_in")
_COPIES = 6
"""Tensors of one chunk that hold a number for each token and latent at the same time."""


@dataclass(frozen=True)
class Dictionary:
    """An SAE or a transcoder at its place in a model.

    Attributes:
        name: what tables call it.
        sae: SAELens' object, frozen, in float32 on the model's device.
        reads: the site that it encodes.
        writes: the site that its latents add up to; the same as ``reads`` for an SAE.
    """

    name: str
    sae: "SAE[Any]"
    reads: Site
    writes: Site

    @classmethod
    def of(cls, sae: "SAE[Any] | str | Path", model: Model, *others: Model) -> "Dictionary":
        """Find the place of an SAE or a transcoder in a model, and bring it to the model's device and float32.

        Args:
            sae: SAELens' object, which is not changed; a folder, or ``RELEASE/SAE_ID``.
            model: the model that it reads.
            others: other models that it reads at the same place.

        Raises:
            ProbeError: if it cannot be read or used, or a model has no such site or another width there.
        """
        made = load_dictionary(sae) if isinstance(sae, str | Path) else sae
        reads, writes = dictionary_sites(made, model, *others)
        name = (
            str(sae) if isinstance(sae, str | Path) else f"SAE at {reads}" if reads == writes else f"{reads} → {writes}"
        )
        if made is sae and (made.dtype, made.device) != (torch.float32, model.device):
            made = copy.deepcopy(made)
        return cls(name, made.to(device=model.device, dtype=torch.float32), reads, writes)

    def __repr__(self) -> str:
        where = str(self.reads) if self.reads == self.writes else f"{self.reads} → {self.writes}"
        return f"Dictionary({self.name!r}, {self.size} latents, {where})"

    @property
    def size(self) -> int:
        """The number of latents."""
        return int(self.sae.cfg.d_sae)

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites, each once."""
        return (self.reads,) if self.reads == self.writes else (self.reads, self.writes)

    @property
    def directions(self) -> Float[Tensor, "latents d_out"]:
        """What each latent writes at activation 1."""
        rows = self.sae.W_dec.detach()
        scaled = getattr(self.sae.cfg, "rescale_acts_by_decoder_norm", False)
        return rows / rows.norm(dim=1, keepdim=True) if scaled else rows

    @torch.no_grad()
    def encode(self, state: Float[Tensor, "*tokens d_in"]) -> Float[Tensor, "*tokens latents"]:
        """The amount of each latent's direction that the dictionary writes at each token.

        This is the activation, times the norm that an SAE of normalised states gives back to its reconstruction.
        """
        sae = self.sae
        acts = sae.encode(state.to(sae.dtype))
        kept = {name: vars(sae).pop(name) for name in ("ln_mu", "ln_std", "x_norm_coeff") if name in vars(sae)}
        if "ln_std" in kept:
            acts = acts * kept["ln_std"]
        if "x_norm_coeff" in kept:
            acts = acts / kept["x_norm_coeff"]
        return acts

    @torch.no_grad()
    def skip(self, state: Float[Tensor, "*tokens d_in"]) -> Float[Tensor, "*tokens d_out"] | None:
        """What the skip connection of a transcoder writes; None where there is none."""
        weight = getattr(self.sae, "W_skip", None)
        return None if weight is None else state.to(self.sae.dtype) @ weight.detach().T

    @torch.no_grad()
    def reconstruct(self, state: Float[Tensor, "*tokens d_in"]) -> Float[Tensor, "*tokens d_out"]:
        """The reconstruction, or what a transcoder predicts, from the state at :attr:`reads`."""
        return self.sae(state.to(self.sae.dtype))

    def chunks(self, tokens: int, budget: int) -> Iterator[slice]:
        """Divide tokens so that a number for each of them and each latent fits into a budget.

        Args:
            tokens: the number of tokens.
            budget: bytes.
        """
        several = max(1, budget // (2 * 4 * _COPIES * self.size))
        for first in range(0, tokens, several):
            yield slice(first, min(tokens, first + several))


def is_transcoder(sae: "SAE[Any]") -> bool:
    """Whether an object of SAELens is a transcoder."""
    return "transcoder" in sae.cfg.architecture()


def load_dictionary(
    name: str | Path, *, reads: str | Site | None = None, writes: str | Site | None = None
) -> "SAE[Any]":
    """Read an SAE or a transcoder in float32, frozen, as SAELens' object.

    Args:
        name: a folder, or ``RELEASE/SAE_ID`` of SAELens' registry; see :func:`load_sae`.
        reads: the site that it reads, where its files do not say or are wrong.
        writes: the site that a transcoder writes, in the same cases.

    Raises:
        ProbeError: as :func:`load_sae`; for a transcoder, if its architecture is unknown, its input is scaled, or it is
            one of sparsify's, for which SAELens has no equivalent.
    """
    if is_release(name):
        made = read_release(str(name))
        if not is_transcoder(made):
            return load_sae(name, reads)
        _check_transcoder(said_of(made), str(name))
    else:
        folder = Path(name).expanduser()
        cfg, tensors = read_folder(folder)
        if "transcoder" not in cfg["architecture"]:
            return load_sae(folder, reads)
        _check_transcoder({**cfg["metadata"], **cfg}, str(folder))
        check_tensors(cfg, tensors, folder)
        made = made_of(cfg, tensors)
    for setting, site in (("hook_name", reads), ("hook_name_out", writes)):
        if site is not None:
            setattr(made.cfg.metadata, setting, name_of(Site.parse(site)))
            setattr(made.cfg.metadata, f"hf_{setting}", None)
    return made.requires_grad_(False).eval()


def dictionary_sites(sae: "SAE[Any]", model: Model, *others: Model) -> tuple[Site, Site]:
    """Find the sites that an SAE or a transcoder reads and writes in a model; one of none of the models is warned of.

    Raises:
        ProbeError: if it cannot be used, its files name no site, or a model has no such site or another width there.
    """
    found = [_sites(sae, each) for each in (model, *others)]
    warn_of_another_model(sae, model, *others)
    return found[0]


def _sites(sae: "SAE[Any]", model: Model) -> tuple[Site, Site]:
    if not is_transcoder(sae):
        site = check_sae(sae, model, warn=False)
        return site, site
    _check_transcoder(said_of(sae), str(sae.cfg.architecture()))
    said = sae.cfg.metadata
    found = [_site_in(model, said, name) for name in ("hook_name", "hook_name_out")]
    for site, width in zip(found, (sae.cfg.d_in, getattr(sae.cfg, "d_out", sae.cfg.d_in)), strict=True):
        if width != model.d_model:
            raise ProbeError(f"the transcoder has width {width} at {site}, and {model.name} has {model.d_model}")
    return found[0], found[1]


def _check_transcoder(said: dict[str, Any], name: str) -> None:
    kind = said.get("architecture")
    if kind not in _TRANSCODERS:
        raise ProbeError(f"{name} is a {kind}; the transcoders that can be read are {', '.join(_TRANSCODERS)}")
    if said.get("apply_b_dec_to_input"):
        raise ProbeError(f"the transcoder {name} subtracts its output bias from its input: fold it into b_enc")
    if said.get("normalize_activations") not in (None, False, "none"):
        raise ProbeError(f"the transcoder {name} reads scaled activations: fold the scale into its weights")
    if said.get("hook_head_index") is not None or said.get("hook_head_index_out") is not None:
        raise ProbeError(f"the transcoder {name} is of one attention head, which is no site")


def _site_in(model: Model, said: Any, setting: str) -> Site:
    """The site that a transcoder's metadata name; the name in Hugging Face's model comes first."""
    argument = "reads" if setting == "hook_name" else "writes"
    advice = f"name the site, as load_dictionary(..., {argument}='mlp_out.3')"
    path = getattr(said, f"hf_{setting}", None)
    if isinstance(path, str) and (known := re.fullmatch(r"(.+)\.(input|output)", path)):
        site = Site(f"{known[1]}:{known[2]}")
        place(model.hf, site)
        return site
    name = getattr(said, setting, None)
    if not name:
        raise ProbeError(f"the transcoder does not say which site it {argument}: {advice}")
    if (inner := _MLP.fullmatch(str(name))) is not None:
        site = Site(f"{_mlp_of(model, int(inner[1]))}:{inner[2]}put")
    elif (before := _BEFORE_NORM.fullmatch(str(name))) is not None:
        site = Site("resid_mid", int(before[1]))
    elif str(name).endswith("ln2.hook_normalized"):
        raise ProbeError(
            f"the transcoder reads {name}, the normalised state before the norm's weights, which is no site: divide "
            f"the rows of W_enc by the norm's weights, and {advice.replace('mlp_out.3', 'model.layers.3.mlp:input')}"
        )
    elif (site := site_at(str(name))) is None:
        raise ProbeError(f"the transcoder {argument} {name}, which is no site: {advice}")
    if site.layer is not None and site.layer >= model.n_layers:
        raise ProbeError(f"the transcoder {argument} {site}, and {model.name} has blocks 0 to {model.n_layers - 1}")
    place(model.hf, site)
    return site


def _mlp_of(model: Model, layer: int) -> str:
    """The path of a block's MLP."""
    if layer >= model.n_layers:
        raise ProbeError(f"the transcoder is of block {layer}, and {model.name} has blocks 0 to {model.n_layers - 1}")
    module = place(model.hf, f"mlp_out.{layer}").module
    if "norm" in module.rpartition(".")[-1]:  # a norm follows the MLP
        module = place(model.hf, f"mlp_post.{layer}").module.rpartition(".")[0]
    return module
