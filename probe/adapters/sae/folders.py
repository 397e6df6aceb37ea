"""SAEs from disk and back: SAELens' folders, and those of sparsify, in which Resa keeps its SAEs.

An SAE is SAELens' own object here, with the place it reads in ``cfg.metadata.hook_name``. SAELens 6 reads sparsify's
files by a converter that transposes the decoder, forgets the decoder's bias at the input and calls every place a
residual stream; so they are converted here.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from probe.errors import ProbeError
from probe.files import read_json, write_json
from probe.models import Site

if TYPE_CHECKING:
    from sae_lens import SAE, TopKSAE

#: Where a module of a block writes, by the end of sparsify's hookpoint; the numbers are 0-based on both sides.
_HOOKPOINTS = {"": "resid_post", ".mlp": "mlp_out", ".self_attn": "attn_out", ".attn": "attn_out"}
_HOOKPOINT = re.compile(r"(?:.*\.)?(?:layers|h)\.(\d+)(\.mlp|\.self_attn|\.attn)?")


def load_sae(folder: str | Path, site: str | Site | None = None) -> "SAE[Any]":
    """Read an SAE, in float32 and frozen.

    Args:
        folder: of SAELens (``sae_weights.safetensors``) or of sparsify (``sae.safetensors``), each with ``cfg.json``.
        site: where it reads, if its files do not say so or are wrong. sparsify's say it by the folder's name alone
            (``layers.12.mlp``).

    Raises:
        ProbeError: if there is no SAE, its files are broken or of a kind that has no equal in SAELens, or nobody says
            where it reads.
    """
    from sae_lens import SAE

    folder = Path(folder)
    if not (folder / "cfg.json").is_file():
        raise ProbeError(f"{folder} holds no SAE: a folder of SAELens or of sparsify has a cfg.json")
    try:
        if (folder / "sae_weights.safetensors").is_file():
            sae = SAE.load_from_disk(str(folder), device="cpu", dtype="float32")
        elif (folder / "sae.safetensors").is_file():
            sae = _of_sparsify(read_json(folder / "cfg.json"), load_file(folder / "sae.safetensors"), folder)
        else:
            raise ProbeError(f"{folder} has a cfg.json and no weights: copy the folder again")
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise ProbeError(f"the SAE in {folder} is broken ({error}): copy the folder again") from error
    if site is not None:
        sae.cfg.metadata.hook_name = Site.parse(site).lens
    site_of(sae)
    return sae.requires_grad_(False).eval()


def site_of(sae: "SAE[Any]") -> Site:
    """Where an SAE reads.

    Raises:
        ProbeError: if it does not say so.
    """
    name = getattr(sae.cfg.metadata, "hook_name", None)
    if not name:
        raise ProbeError("this SAE does not say where it reads: name the site, as load_sae(folder, 'resid_post.12')")
    path = _HOOKPOINT.fullmatch(str(name))
    return Site(_HOOKPOINTS[path[2] or ""], int(path[1])) if path else Site.parse(str(name))


def save_sparsify(sae: "SAE[Any]", folder: str | Path) -> Path:
    """Write an SAE as sparsify reads it, into ``folder/HOOKPOINT``, and give that back.

    Raises:
        ProbeError: if it is no top-k SAE on raw activations.
    """
    cfg = sae.cfg
    if cfg.architecture() != "topk" or cfg.normalize_activations != "none":
        raise ProbeError(f"sparsify has top-k SAEs on raw activations only; this one is {cfg.architecture()}")
    if cfg.rescale_acts_by_decoder_norm or not cfg.apply_b_dec_to_input:
        raise ProbeError("sparsify takes the decoder's bias off the input and leaves latents as they are: fold first")
    site = site_of(sae)
    ending = next((end for end, kind in _HOOKPOINTS.items() if kind == site.kind), None)
    if ending is None:
        raise ProbeError(f"sparsify has no hookpoint for {site}: it has blocks, their MLPs and attention")
    folder = Path(folder) / f"layers.{site.layer}{ending}"
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        "encoder.weight": sae.W_enc.T,
        "encoder.bias": sae.b_enc,
        "W_dec": sae.W_dec,
        "b_dec": sae.b_dec,
    }
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, folder / "sae.safetensors"
    )
    about = {
        "activation": "topk",
        "expansion_factor": max(1, cfg.d_sae // cfg.d_in),
        "normalize_decoder": False,
        "num_latents": cfg.d_sae,
        "k": cfg.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": cfg.d_in,
    }
    write_json(folder / "cfg.json", about)
    return folder


def random_sae(sae: "SAE[Any]", seed: int) -> "SAE[Any]":
    """A control: the same shape and lengths, every direction drawn."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(tensor: torch.Tensor, dim: int) -> torch.Tensor:
        made = torch.randn(tensor.shape, generator=generator).to(tensor)
        return torch.nn.functional.normalize(made, dim=dim) * tensor.norm(dim=dim, keepdim=True)

    return _changed(sae, W_enc=drawn(sae.W_enc, 0), W_dec=drawn(sae.W_dec, 1))


def shuffled_decoder(sae: "SAE[Any]", seed: int) -> "SAE[Any]":
    """A control: the right latents fire, and each writes another's direction."""
    order = torch.randperm(len(sae.W_dec), generator=torch.Generator().manual_seed(seed))
    return _changed(sae, W_dec=sae.W_dec[order.to(sae.W_dec.device)])


def _changed(sae: "SAE[Any]", **tensors: torch.Tensor) -> "SAE[Any]":
    from sae_lens import SAE

    with torch.random.fork_rng(devices=[]):  # it draws weights before it is given these
        made = SAE.from_dict(sae.cfg.to_dict())
    made.load_state_dict(sae.state_dict() | tensors)
    return made.to(sae.W_dec.device).requires_grad_(False).eval()


def _of_sparsify(cfg: dict[str, Any], tensors: dict[str, torch.Tensor], folder: Path) -> "TopKSAE":
    from sae_lens import TopKSAE, TopKSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    if cfg.get("activation", "topk") != "topk" or cfg.get("skip_connection") or cfg.get("multi_topk"):
        raise ProbeError(
            f"the SAE in {folder} is a {cfg.get('activation', 'topk')} SAE"
            f"{' with a skip connection' if cfg.get('skip_connection') else ''}"
            f"{' of several k' if cfg.get('multi_topk') else ''}: SAELens has no equal"
        )
    hookpoint = _HOOKPOINT.fullmatch(folder.resolve().name)
    name = Site(_HOOKPOINTS[hookpoint[2] or ""], int(hookpoint[1])).lens if hookpoint else None
    size = cfg.get("num_latents") or cfg["d_in"] * cfg["expansion_factor"]  # 0: by the factor
    config = TopKSAEConfig(
        d_in=cfg["d_in"],
        d_sae=size,
        k=cfg["k"],
        apply_b_dec_to_input=not cfg.get("transcode", False),
        rescale_acts_by_decoder_norm=False,
        metadata=SAEMetadata(hook_name=name),
    )
    with torch.random.fork_rng(devices=[]):
        sae = TopKSAE(config)
    state = {
        "W_enc": tensors["encoder.weight"].T.contiguous(),
        "b_enc": tensors["encoder.bias"],
        "W_dec": tensors["W_dec"],
        "b_dec": tensors["b_dec"],
    }
    sae.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return sae
