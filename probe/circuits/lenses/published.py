"""Published Jacobian lenses by name: found in TransformerLens' registry, downloaded, and converted once."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from probe.circuits.lenses.jacobian import ABOUT, JacobianLens
from probe.config import nearest
from probe.errors import ProbeError
from probe.models import Model

_REGISTRY = "jacobian_lens_registry.json"


def published_lenses() -> dict[str, tuple[str, ...]]:
    """The names of published Jacobian lenses, and the hub ids of the model that each was fitted on."""
    return {name: tuple(entry["aliases"]) for name, entry in _registry().items()}


def load_jacobian_lens(name: str | Path, model: Model | None = None) -> JacobianLens:
    """Load a Jacobian lens that somebody fitted.

    A published lens is downloaded (or read from the hub's cache) as the ``.pt`` file that its authors wrote, without
    unpickling objects, and converted once to a folder beside that cache.

    Args:
        name: a name or hub id of :func:`published_lenses`, such as ``qwen3-8b``; a folder of :meth:`JacobianLens.save`;
            or a ``.pt`` file of TransformerLens or of the reference code. A file does not say which model it is of, so
            give the model.
        model: the model that will be read; the lens must be of it.

    Raises:
        ProbeError: if there is no such lens, it cannot be downloaded or read, or it is of another model.
    """
    path = Path(name).expanduser()
    if (path / ABOUT).is_file():
        lens = JacobianLens.load(path)
    elif path.is_file():
        names = () if model is None else (model.name, model.config.path)
        lens = _converted(path, names[0] if names else path.stem, names, str(path))
    else:
        lens = _published(str(name))
    if model is not None:
        lens.check(model)
    return lens


def _published(name: str) -> JacobianLens:
    from huggingface_hub import constants, hf_hub_download

    registry = _registry()
    entry = registry.get(name) or next((each for each in registry.values() if name in each["aliases"]), None)
    if entry is None:
        known = [*registry, *(alias for each in registry.values() for alias in each["aliases"])]
        raise ProbeError(
            f"there is no folder or file {name}, and no published Jacobian lens {name!r}; {nearest(name, known)}"
        )
    short = next(each for each, value in registry.items() if value is entry)
    try:
        file = Path(hf_hub_download(entry["repo_id"], entry["filename"]))
    except (OSError, ValueError, RuntimeError) as error:
        raise ProbeError(
            f"the lens {short} of {entry['repo_id']} cannot be downloaded ({_short(error)}); without a network it must "
            "be in the hub's cache"
        ) from error
    # The commit is part of the path of a cached file, so that a new version is converted again.
    commit = file.parents[len(Path(entry["filename"]).parts) - 1].name
    folder = Path(constants.HF_HOME) / "probe" / f"jacobian-lens-{short}-{commit[:12]}"
    if not (folder / ABOUT).is_file():
        model, *others = [*entry["aliases"], short]
        _converted(file, model, (*others, file.stem.removesuffix("_jacobian_lens")), entry["corpus"]).save(folder)
    return JacobianLens.load(folder)


def _converted(file: Path, model: str, names: tuple[str, ...], texts: str) -> JacobianLens:
    """Read an artifact or a checkpoint of a fit, as TransformerLens knows them."""
    from transformer_lens.tools.analysis.jacobian_lens import JacobianLens as Theirs

    try:
        lens = Theirs.load(str(file))
    except Exception as error:  # torch raises errors of many kinds for a damaged file
        raise ProbeError(f"{file} cannot be read as a Jacobian lens ({_short(error)}); download it again") from error
    about = lens.metadata
    fitted = {"n_texts": lens.n_prompts, "texts": str(about.get("corpus", texts))}
    fitted |= {key: about[key] for key in ("model_name", "model_revision", "fit_dtype") if about.get(key) is not None}
    # A full fit has every block but the last; a checkpoint may say which block it was fitted towards.
    n_layers = int(about.get("target_layer", max(lens.jacobians) + 1)) + 1
    halves = {layer: matrix.half() for layer, matrix in lens.jacobians.items()}
    exact = all(torch.equal(half.float(), lens.jacobians[layer]) for layer, half in halves.items())
    # Most are published in half precision, which TransformerLens reads as float32.
    return JacobianLens(halves if exact else lens.jacobians, model, n_layers, fitted, names)


def _registry() -> dict[str, dict[str, Any]]:
    text = (files("transformer_lens.tools.analysis") / _REGISTRY).read_text(encoding="utf-8")
    return {name: entry for name, entry in json.loads(text).items() if isinstance(entry, dict)}


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
