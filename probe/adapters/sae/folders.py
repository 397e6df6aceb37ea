"""SAEs on disk, in the formats of SAELens and sparsify (in which Resa publishes its SAEs), and random controls.

In memory an SAE is SAELens' own object, whose ``cfg.metadata.hook_name`` says which site it reads. The converter in
SAELens 6 transposes sparsify's decoder, drops the subtraction of the decoder's bias from the input and takes every
hookpoint for a residual stream; therefore the conversion is done here.
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

#: Kind of site for each ending of sparsify's hookpoints; layers are 0-based in both.
_HOOKPOINTS = {"": "resid_post", ".mlp": "mlp_out", ".self_attn": "attn_out", ".attn": "attn_out"}
_HOOKPOINT = re.compile(r"(?:.*\.)?(?:layers|h)\.(\d+)(\.mlp|\.self_attn|\.attn)?")


def load_sae(folder: str | Path, site: str | Site | None = None) -> "SAE[Any]":
    """Read an SAE in float32, frozen.

    Args:
        folder: a folder of SAELens (``sae_weights.safetensors``) or sparsify (``sae.safetensors``), with ``cfg.json``.
        site: the site it reads, where its files do not say or are wrong. sparsify says it in the folder's name alone
            (``layers.12.mlp``).

    Raises:
        ProbeError: if the folder holds no SAE, its files are damaged, SAELens has no equivalent of its architecture, or
            its site is unknown.
    """
    from sae_lens import SAE

    folder = Path(folder)
    if not (folder / "cfg.json").is_file():
        raise ProbeError(f"{folder} holds no SAE: a folder of SAELens or sparsify has a cfg.json")
    try:
        if (folder / "sae_weights.safetensors").is_file():
            sae = SAE.load_from_disk(str(folder), device="cpu", dtype="float32")
        elif (folder / "sae.safetensors").is_file():
            sae = _of_sparsify(read_json(folder / "cfg.json"), load_file(folder / "sae.safetensors"), folder)
        else:
            raise ProbeError(f"{folder} has a cfg.json but no weights: copy the folder again")
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise ProbeError(f"the SAE in {folder} is broken ({error}): copy the folder again") from error
    if site is not None:
        sae.cfg.metadata.hook_name = Site.parse(site).lens
    site_of(sae)
    return sae.requires_grad_(False).eval()


def site_of(sae: "SAE[Any]") -> Site:
    """The site that an SAE reads.

    Raises:
        ProbeError: if its configuration names none.
    """
    name = getattr(sae.cfg.metadata, "hook_name", None)
    if not name:
        raise ProbeError("this SAE does not say where it reads: name the site, as load_sae(folder, 'resid_post.12')")
    path = _HOOKPOINT.fullmatch(str(name))
    return Site(_HOOKPOINTS[path[2] or ""], int(path[1])) if path else Site.parse(str(name))


def save_sparsify(sae: "SAE[Any]", folder: str | Path) -> Path:
    """Write an SAE in sparsify's format.

    Args:
        sae: a top-k SAE on raw activations.
        folder: gets a folder named after the hookpoint, such as ``layers.12.mlp``.

    Returns:
        That folder.

    Raises:
        ProbeError: if sparsify has no equivalent of the SAE or of its site.
    """
    cfg = sae.cfg
    if cfg.architecture() != "topk" or cfg.normalize_activations != "none":
        raise ProbeError(f"sparsify reads only top-k SAEs on raw activations; this one is {cfg.architecture()}")
    if cfg.rescale_acts_by_decoder_norm or not cfg.apply_b_dec_to_input:
        raise ProbeError(
            "sparsify subtracts the decoder's bias from the input and does not rescale latents: fold both into the SAE"
        )
    site = site_of(sae)
    ending = next((end for end, kind in _HOOKPOINTS.items() if kind == site.kind), None)
    if ending is None:
        raise ProbeError(f"sparsify has no hookpoint for {site}: it has blocks, their MLPs and their attention")
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
    """A control: an SAE with the same shapes and vector norms and random directions.

    Args:
        sae: the SAE that it is the control of.
        seed: seeds the directions.
    """
    generator = torch.Generator().manual_seed(seed)

    def random(tensor: torch.Tensor, dim: int) -> torch.Tensor:
        made = torch.randn(tensor.shape, generator=generator).to(tensor)
        return torch.nn.functional.normalize(made, dim=dim) * tensor.norm(dim=dim, keepdim=True)

    return _changed(sae, W_enc=random(sae.W_enc, 0), W_dec=random(sae.W_dec, 1))


def shuffled_decoder(sae: "SAE[Any]", seed: int) -> "SAE[Any]":
    """A control: the same latents are active, but each writes the decoder direction of another.

    Args:
        sae: the SAE that it is the control of.
        seed: seeds the permutation of the decoder's rows.
    """
    order = torch.randperm(len(sae.W_dec), generator=torch.Generator().manual_seed(seed))
    return _changed(sae, W_dec=sae.W_dec[order.to(sae.W_dec.device)])


def _changed(sae: "SAE[Any]", **tensors: torch.Tensor) -> "SAE[Any]":
    from sae_lens import SAE

    with torch.random.fork_rng(devices=[]):  # it initialises weights that are replaced at once
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
            f"{' with several k' if cfg.get('multi_topk') else ''}: SAELens has no equivalent"
        )
    hookpoint = _HOOKPOINT.fullmatch(folder.resolve().name)
    name = Site(_HOOKPOINTS[hookpoint[2] or ""], int(hookpoint[1])).lens if hookpoint else None
    size = cfg.get("num_latents") or cfg["d_in"] * cfg["expansion_factor"]  # 0 means: by the factor
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
