"""Which SAEs can be used: those that reconstruct the one state that they read, at a site that the model has.

SAELens holds much more in the same class: transcoders, SAEs of scaled activations whose scale is not in the file, SAEs
of one head or of all heads side by side. Each would run, and give other numbers than its makers'.
"""

import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError
from probe.models import Model, Site, place

if TYPE_CHECKING:
    from sae_lens import SAE

#: Kind of site for each ending of a module's path, as sparsify names hookpoints; layers are 0-based in both.
HOOKPOINTS = {"": "resid_post", ".mlp": "mlp_out", ".self_attn": "attn_out", ".attn": "attn_out"}
_ENDINGS = {**HOOKPOINTS, ".attention": "attn_out"}
#: A module's path that is a hookpoint.
HOOKPOINT = re.compile(r"(?:.*\.)?(?:layers|h)\.(\d+)(\.mlp|\.self_attn|\.attn|\.attention)?(?:\.output)?")

#: Architectures that encode and decode each state by itself.
_ARCHITECTURES = ("standard", "topk", "abstopk", "jumprelu", "gated")
#: Normalisations that SAELens applies to each state when it runs an SAE; the others need a number from training.
_BY_STATE = (None, False, "none", "layer_norm", "constant_norm_rescale")
#: Kinds of site with one vector of one width for each token.
_D_MODEL = ("embed", "resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post", "final_norm")
_WIDE = ("mlp_pre", "mlp_post")


def site_of(sae: "SAE[Any]") -> Site:
    """The site that an SAE reads and reconstructs.

    Raises:
        ProbeError: if its configuration names none, or one that is no site, or it is no plain SAE.
    """
    check_plain(said_of(sae), "this SAE")
    name = getattr(sae.cfg.metadata, "hook_name", None)
    if not name:
        raise ProbeError("this SAE does not say where it reads: name the site, as load_sae(folder, 'resid_post.12')")
    site = site_at(str(name))
    if site is None:
        raise ProbeError(f"this SAE reads {name}, which is no site: name one, as load_sae(folder, 'resid_post.12')")
    return site


def site_at(name: str) -> Site | None:
    """The site of a hook of TransformerLens, a hookpoint of sparsify or a site's name; None if it is none."""
    if path := HOOKPOINT.fullmatch(name):
        return Site(_ENDINGS[path[2] or ""], int(path[1]))
    try:
        site = Site.parse(name)
    except ProbeError:
        return None
    # A hook that has no site of its own would be taken for a module's path.
    unknown = site.is_module and re.search(r"(^|\.)(hook_|blocks\.\d)", name)
    return None if unknown or not (site.is_module or site.kind in (*_D_MODEL, *_WIDE)) else site


def name_of(site: Site) -> str:
    """What an SAE's ``hook_name`` says for a site; :func:`site_of` reads it back."""
    if not site.is_module:
        return site.lens
    return site.kind if ":" in site.kind else f"{site.kind}:output"  # otherwise a hookpoint of sparsify


def check_plain(said: Mapping[str, Any], what: str) -> None:
    """Check that an SAE reconstructs the one state that it reads.

    Args:
        said: its settings and metadata in one table.
        what: what it is called in the message.

    Raises:
        ProbeError: naming the setting that makes it something else.
    """
    kind = said.get("architecture", "standard")
    if "transcoder" in str(kind) or said.get("transcode") or said.get("d_out", said.get("d_in")) != said.get("d_in"):
        raise ProbeError(f"{what} is a transcoder: it predicts one state from another, and only SAEs can be used here")
    if kind not in _ARCHITECTURES:
        raise ProbeError(f"{what} is a {kind} SAE; only {', '.join(_ARCHITECTURES)} SAEs can be used")
    read, written = said.get("hook_name"), said.get("hook_name_out")
    if written not in (None, "", read):
        raise ProbeError(f"{what} is a transcoder: it reads {read} and writes {written}; only SAEs can be used here")
    if said.get("hook_head_index") is not None or said.get("hook_head_index_out") is not None:
        raise ProbeError(f"{what} reads one attention head (hook_head_index), which is no site: take an SAE of all")
    if said.get("reshape_activations") not in (None, "none") or str(read).endswith("hook_z"):
        raise ProbeError(f"{what} reads all heads side by side (hook_z), which is no site: take one of attn_out")
    scaled = said.get("normalize_activations")
    if not any(scaled is each or (isinstance(scaled, str) and scaled == each) for each in _BY_STATE):
        raise ProbeError(
            f"{what} was trained on scaled activations (normalize_activations {scaled!r}), and the scale is not in its "
            "folder: fold it in with SAELens' fold_activation_norm_scaling_factor, and save the SAE again"
        )


def check_sae(sae: "SAE[Any]", model: Model, site: Site | None = None, *, warn: bool = True) -> Site:
    """Check that an SAE can be used in a model; one of another model of the same shape only causes a warning.

    Args:
        site: where it is used; None takes its own site.
        warn: warn of another model.

    Returns:
        The site.

    Raises:
        ProbeError: if it is no plain SAE, the model has no such site, or its width there differs.
    """
    own = site is None
    if site is None:
        site = site_of(sae)
    else:
        check_plain(said_of(sae), "this SAE")
    if site.layer is not None and site.layer >= model.n_layers:
        raise ProbeError(
            f"the SAE reads {site}, and {model.name} has blocks 0 to {model.n_layers - 1}: it is of another model"
        )
    where, name = place(model.hf, site), str(getattr(sae.cfg.metadata, "hook_name", None))
    module = where.module.rpartition(".")[-1]
    if own and HOOKPOINT.fullmatch(name) and site.kind != "resid_post" and f".{module}" not in _ENDINGS:
        raise ProbeError(
            f"the SAE reads the module {name}, and in {model.name} a norm follows it before {site}: name the module "
            f"as its site, such as load_sae(folder, '{where.module.replace(module, name.rpartition('.')[-1])}')"
        )
    if site.kind in _D_MODEL and sae.cfg.d_in != model.d_model:
        raise ProbeError(f"the SAE has width {sae.cfg.d_in}, and {model.name} has {model.d_model}: give another SAE")
    if warn:
        warn_of_another_model(sae, model)
    return site


def said_of(sae: "SAE[Any]") -> dict[str, Any]:
    """The settings and the metadata of an SAE in one table."""
    return {**sae.cfg.metadata.to_dict(), **sae.cfg.to_dict()}


def warn_of_another_model(sae: "SAE[Any]", *models: Model) -> None:
    """Warn if an SAE says that it was trained on a model that is none of these."""
    named, written = getattr(sae.cfg.metadata, "model_name", None), getattr(sae.cfg.metadata, "probe_site", None)
    if not isinstance(named, str) or not named or written:  # a taxonomy is used in both models of its pair
        return
    names = [(each.name, str(each.config.path), str(each.hf.config.name_or_path)) for each in models]
    known = {_plain(name) for some in names for name in some} - {""}
    if getattr(sae.cfg.metadata, "release", None):  # the registry's name is exact: X is not X-Instruct
        same = bool({_plain(each) for each in (named, _hub_name(named))} & known)
    else:
        same = any(each in _plain(named) or _plain(named) in each for each in known)
    if not same:
        own = " and ".join(each.name for each in models)
        said = f"this model is {own}" if len(models) == 1 else f"these models are {own}"
        warnings.warn(f"the SAE says it was trained on {named}, and {said}", stacklevel=3)


def _hub_name(name: str) -> str:
    """The hub id of a model that TransformerLens knows under a name of its own, such as ``gpt2-small``."""
    from transformer_lens.loading_from_pretrained import get_official_model_name

    try:
        return get_official_model_name(name)
    except ValueError:
        return name


def _plain(name: str) -> str:
    """The last part of a model's name, without punctuation."""
    return re.sub(r"[^a-z0-9]", "", name.rstrip("/").rpartition("/")[-1].lower())
