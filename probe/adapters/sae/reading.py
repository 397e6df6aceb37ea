"""Reads SAE folders of SAELens (all versions) and sparsify; everything is checked before SAELens sees it.

In memory an SAE is SAELens' own object, whose ``cfg.metadata.hook_name`` says which site it reads. The converter in
SAELens 6 transposes sparsify's decoder, drops the subtraction of the decoder's bias from the input and takes every
hookpoint for a residual stream; therefore the conversion is done here. SAELens also takes a missing ``k`` for 100 and
any activation function of an old file for ReLU; both are refused here.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from probe.adapters.sae.names import is_release
from probe.adapters.sae.plain import HOOKPOINT, check_plain, name_of, site_of
from probe.adapters.sae.releases import load_release
from probe.errors import ProbeError
from probe.files import read_json
from probe.models import Site

if TYPE_CHECKING:
    from sae_lens import SAE

_SAELENS, _SPARSIFY = "sae_weights.safetensors", "sae.safetensors"
#: A file by which a folder of another library is known.
_OTHERS = {
    "params.npz": "Gemma Scope",
    "hyperparams.json": "Llama Scope",
    "lm_config.json": "Llama Scope",
    "ae.pt": "dictionary_learning",
}
#: Names of settings in earlier versions of SAELens.
_RENAMED = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
#: Tensors beside W_enc, W_dec and b_dec, each with one number for a latent.
_TENSORS = {"jumprelu": ("b_enc", "threshold"), "gated": ("b_gate", "r_mag", "b_mag")}
#: What old files say of an SAE beside its shape.
_ABOUT = (
    *("model_name", "hook_name", "hook_name_out", "hook_head_index", "hook_head_index_out", "context_size"),
    *("prepend_bos", "dataset_path", "neuronpedia_id", "model_from_pretrained_kwargs"),
)
_BOOLEANS = ("apply_b_dec_to_input", "rescale_acts_by_decoder_norm")
_NORMALISATIONS = ("none", "layer_norm", "constant_norm_rescale", "expected_average_only_in", "covariance_whitening")


def load_sae(folder: str | Path, site: str | Site | None = None) -> "SAE[Any]":
    """Read an SAE in float32, frozen.

    Args:
        folder: a folder of SAELens (``sae_weights.safetensors``) or sparsify (``sae.safetensors``), with ``cfg.json``;
            or ``RELEASE/SAE_ID``, an SAE of SAELens' registry, which is downloaded from the hub.
        site: the site it reads, where its files do not say or are wrong. sparsify says it in the folder's name alone
            (``layers.12.mlp``).

    Raises:
        ProbeError: if the folder holds no SAE or one of another library, its files are damaged, it does more than
            reconstruct the one state that it reads (a transcoder, an SAE of scaled activations or of one head),
            SAELens has no equivalent of its architecture, or its site is unknown.
    """
    if is_release(folder):
        return load_release(str(folder), None if site is None else Site.parse(site))
    folder = Path(folder).expanduser()
    cfg, tensors = read_folder(folder)
    if site is not None:
        cfg["metadata"]["hook_name"] = name_of(Site.parse(site))
    check_plain({**cfg["metadata"], **cfg}, f"the SAE in {folder}")
    check_tensors(cfg, tensors, folder)
    sae = made_of(cfg, tensors)
    site_of(sae)
    return sae.requires_grad_(False).eval()


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Read the settings, as SAELens 6 writes them, and the tensors of a folder; neither is checked.

    Raises:
        ProbeError: if the folder holds no SAE or one of another library, or its files are damaged.
    """
    if not (folder / "cfg.json").is_file():
        raise ProbeError(_no_sae(folder))
    cfg = read_json(folder / "cfg.json")
    if not isinstance(cfg, dict):
        raise ProbeError(f"{folder / 'cfg.json'} is not a JSON object: copy the folder again")
    file = next((file for file in (_SAELENS, _SPARSIFY) if (folder / file).is_file()), None)
    if file is None:
        raise ProbeError(f"{folder} has a cfg.json but no weights: copy the folder again")
    try:
        tensors = load_file(folder / file)
    except (SafetensorError, OSError) as error:
        raise ProbeError(f"the SAE in {folder} is broken ({error}): copy the folder again") from error
    return (_of_saelens if file == _SAELENS else _of_sparsify)(cfg, tensors, folder)


def _no_sae(folder: Path) -> str:
    if other := next((said for file, said in _OTHERS.items() if (folder / file).exists()), None):
        return (
            f"{folder} holds an SAE of {other}: load it with SAELens (SAE.from_pretrained) and save it with save_model"
        )
    if inside := sorted(path.parent.name for path in folder.glob("*/cfg.json")):
        return f"{folder} holds several SAEs, and load_sae reads one: give one of its folders, such as {inside[0]}"
    return f"{folder} holds no SAE: a folder of SAELens or sparsify has a cfg.json"


def made_of(cfg: dict[str, Any], tensors: dict[str, torch.Tensor]) -> "SAE[Any]":
    """Make SAELens' object in float32 on the CPU."""
    from sae_lens import SAE

    with torch.random.fork_rng(devices=[]):  # it initialises weights, which are replaced
        sae = SAE.from_dict({**cfg, "device": "meta"})
    sae.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return sae.to(device="cpu")


def _of_saelens(
    raw: dict[str, Any], tensors: dict[str, torch.Tensor], folder: Path
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Settings as SAELens 6 writes them, from those of any version, and the tensors."""
    metadata = raw.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise ProbeError(f"{folder / 'cfg.json'} has metadata {metadata!r}, which is no table: copy the folder again")
    flat = {_RENAMED.get(name, name): value for name, value in raw.items() if name != "metadata"}
    said = {**flat, **metadata}
    for name in ("hook_name", "hook_name_out", "model_name"):
        if said.get(name) is not None and not isinstance(said[name], str):
            raise ProbeError(f"{folder / 'cfg.json'} has {name} {said[name]!r}, which is no name")
    if not isinstance(said.get("model_from_pretrained_kwargs") or {}, dict):
        raise ProbeError(f"{folder / 'cfg.json'} has model_from_pretrained_kwargs that are no table")
    kind = _architecture(said, folder)
    known = ("d_in", "d_sae", "k", *_BOOLEANS, "normalize_activations", "reshape_activations", "d_out")
    cfg = {name: flat[name] for name in known if name in flat}
    for name in _BOOLEANS:
        default = name == "apply_b_dec_to_input" and "transcoder" not in kind
        if not isinstance(cfg.setdefault(name, default), bool):
            raise ProbeError(f"{folder / 'cfg.json'} has {name} {cfg[name]!r}; it is true or false")
    if kind not in ("topk", "abstopk"):
        del cfg["rescale_acts_by_decoder_norm"]
    scaled = cfg.get("normalize_activations")
    cfg["normalize_activations"] = {None: "none", False: "none", True: "expected_average_only_in"}.get(
        scaled if scaled is None or isinstance(scaled, bool) else "", scaled
    )
    if cfg["normalize_activations"] not in _NORMALISATIONS:
        raise ProbeError(f"{folder / 'cfg.json'} has normalize_activations {scaled!r}, which is unknown")
    if cfg.get("reshape_activations") not in (None, "none", "hook_z"):
        raise ProbeError(f"{folder / 'cfg.json'} has reshape_activations {cfg['reshape_activations']!r}: unknown")
    if kind in ("topk", "abstopk"):
        given = said.get("activation_fn_kwargs")
        cfg["k"] = cfg.get("k", given.get("k") if isinstance(given, dict) else None)
    else:
        cfg.pop("k", None)
    scale = tensors.pop("scaling_factor", None)
    if (said.get("finetuning_scaling_factor") and scale is None) or (
        scale is not None and not bool((scale == 1).all())
    ):
        raise ProbeError(
            f"the SAE in {folder} scales its latents (finetuning_scaling_factor): multiply the rows of W_dec by "
            "scaling_factor, and save it without"
        )
    about = metadata or {name: said[name] for name in _ABOUT if name in said}
    return {**cfg, "architecture": kind, "metadata": {**about, "hook_name": said.get("hook_name")}}, tensors


def _architecture(said: dict[str, Any], folder: Path) -> str:
    """The architecture; before version 5 a top-k SAE was a standard one with another activation function."""
    kind, activation = said.get("architecture"), said.get("activation_fn", "relu")
    if kind is None:
        if "k" in said or "threshold" in said:
            raise ProbeError(f"{folder / 'cfg.json'} has no architecture: copy the folder again")
        kind = "standard"
    if not isinstance(kind, str):
        raise ProbeError(f"{folder / 'cfg.json'} has architecture {kind!r}, which is no name")
    if activation == "topk" and kind in ("standard", "topk"):
        return "topk"
    if activation != "relu":
        raise ProbeError(f"the SAE in {folder} has the activation function {activation!r}: SAELens has no equivalent")
    return kind


def _of_sparsify(
    raw: dict[str, Any], tensors: dict[str, torch.Tensor], folder: Path
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The same from sparsify's files, which say the site by the folder's name alone."""
    run = folder.resolve().parent / "config.json"  # older versions noted there that it is a transcoder
    trained = read_json(run) if run.is_file() else {}
    transcode = raw.get("transcode") or (isinstance(trained, dict) and trained.get("transcode"))
    check_plain({"transcode": transcode}, f"the SAE in {folder}")
    for name, what in (
        ("skip_connection", "with a skip connection"),
        ("multi_topk", "with several k"),
        ("signed", "with latents of either sign"),
    ):
        if raw.get(name):
            raise ProbeError(f"the SAE in {folder} is one {what}: SAELens has no equivalent")
    if raw.get("activation", "topk") != "topk":
        raise ProbeError(f"the SAE in {folder} is a {raw['activation']} SAE: SAELens has no equivalent")
    if "encoder.weight" in tensors and "W_dec" not in tensors:
        raise ProbeError(f"the SAE in {folder} was saved without a decoder: take one that has W_dec")
    names = {"encoder.weight": "W_enc", "encoder.bias": "b_enc"}
    made = {names.get(name, name): tensor for name, tensor in tensors.items()}
    if made.get("W_enc", torch.empty(0)).ndim == 2:
        made["W_enc"] = made["W_enc"].T.contiguous()
    size, factor, width = (raw.get(name, 0) for name in ("num_latents", "expansion_factor", "d_in"))
    if not size and _is_count(factor) and _is_count(width):
        size = int(factor) * int(width)  # 0 means: by the factor
    hookpoint = folder.resolve().name
    return {
        "architecture": "topk",
        "d_in": width,
        "d_sae": size,
        "k": raw.get("k"),
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": {"hook_name": hookpoint if HOOKPOINT.fullmatch(hookpoint) else None},
    }, made


def check_tensors(cfg: dict[str, Any], tensors: dict[str, torch.Tensor], folder: Path) -> None:
    """Check the numbers in the settings, and the tensors by name, shape and value."""
    for name in ("d_in", "d_sae", *(["k"] if "k" in cfg else [])):
        if not _is_count(cfg.get(name)):
            raise ProbeError(
                f"the SAE in {folder} is broken (its cfg.json has {name} {cfg.get(name)!r}): copy it again"
            )
    width, size = cfg["d_in"], cfg["d_sae"]
    if cfg.get("k", 1) > size:
        raise ProbeError(f"the SAE in {folder} is broken (k is {cfg['k']} of {size} latents): copy it again")
    out = cfg.get("d_out", width)
    wanted = {"W_enc": (width, size), "W_dec": (size, out), "b_dec": (out,)}
    if "skip" in cfg["architecture"]:
        wanted["W_skip"] = (out, width)
    wanted |= dict.fromkeys(_TENSORS.get(cfg["architecture"].partition("_")[0], ("b_enc",)), (size,))
    for name in sorted({*wanted, *tensors}):
        if name not in tensors or name not in wanted:
            what = f"has no {name}" if name in wanted else f"has {name}, which a {cfg['architecture']} SAE has not"
            raise ProbeError(f"the SAE in {folder} is broken (it {what}): copy the folder again")
        if tuple(tensors[name].shape) != wanted[name]:
            shapes = " and not ".join(" × ".join(map(str, shape)) for shape in (tensors[name].shape, wanted[name]))
            raise ProbeError(f"the SAE in {folder} is broken ({name} is {shapes}): copy the folder again")
        if not tensors[name].isfinite().all():
            raise ProbeError(f"the SAE in {folder} is broken ({name} has numbers that are not finite): copy it again")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < math.inf
