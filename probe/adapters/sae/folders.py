"""Writes SAEs in the formats of SAELens and sparsify (in which Resa publishes its SAEs), and makes random controls."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from probe.adapters.sae.plain import HOOKPOINTS, check_sae, site_of
from probe.adapters.sae.reading import load_sae
from probe.errors import NotApplicable, ProbeError
from probe.files import write_json
from probe.models import Model, Site, place

if TYPE_CHECKING:
    from sae_lens import SAE


def save_saelens(sae: "SAE[Any]", folder: str | Path) -> Path:
    """Write an SAE in SAELens' format, read it again and compare.

    Args:
        folder: the folder that is written.

    Raises:
        ProbeError: if it is no plain SAE, or what is read is not what was written.
    """
    site, folder = site_of(sae), Path(folder)
    sae.save_model(folder)
    _check_same(load_sae(folder), sae, site, folder)
    return folder


def save_sparsify(sae: "SAE[Any]", folder: str | Path, model: Model | None = None) -> Path:
    """Write an SAE in sparsify's format, read it again and compare.

    Args:
        sae: a top-k SAE on raw activations.
        folder: gets a folder named after the hookpoint, such as ``layers.12.mlp``.
        model: the model that it reads; None takes sparsify's hookpoint for the site, which is wrong where a norm
            follows the attention or the MLP (Gemma 2 and 3, OLMo 2).

    Returns:
        That folder.

    Raises:
        NotApplicable: if sparsify has no equivalent of the SAE or of its site.
    """
    cfg, site = sae.cfg, site_of(sae)
    if cfg.architecture() != "topk" or cfg.normalize_activations != "none":
        raise NotApplicable(f"sparsify reads only top-k SAEs on raw activations; this one is {cfg.architecture()}")
    if cfg.rescale_acts_by_decoder_norm or not cfg.apply_b_dec_to_input:
        raise NotApplicable(
            "sparsify subtracts the decoder's bias from the input and does not rescale latents: fold both into the SAE"
        )
    ending = next((end for end, kind in HOOKPOINTS.items() if kind == site.kind), None)
    if ending is None:
        raise NotApplicable(f"sparsify has no hookpoint for {site}: it has blocks, their MLPs and their attention")
    if model is not None and ending:
        check_sae(sae, model)
        ending = "." + place(model.hf, site).module.rpartition(".")[-1]
        if "norm" in ending:
            raise NotApplicable(
                f"sparsify has no hookpoint for {site} of {model.name}, where a norm follows the module"
            )
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
    _check_same(load_sae(folder), sae, site, folder)
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


def _check_same(found: "SAE[Any]", wanted: "SAE[Any]", site: Site, folder: Path) -> None:
    tensors, there = wanted.state_dict(), found.state_dict()
    same = tensors.keys() == there.keys() and site_of(found) == site
    if not same or not all(torch.equal(there[name].cpu(), tensors[name].float().cpu()) for name in tensors):
        raise ProbeError(f"{folder} was written, but read again it is another SAE: report this, and do not use it")
