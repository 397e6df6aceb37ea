"""SAEs by their names in SAELens' registry: ``RELEASE/SAE_ID``, such as ``llama_scope_r1_distill/…``.

SAELens downloads and converts them. The registry also says which model an SAE was trained on, which is more reliable
than what the files say: those of ``llama_scope_r1_distill`` name the base model.
"""

import warnings
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from probe.adapters.sae.plain import check_plain, name_of, site_of
from probe.config import nearest
from probe.errors import ProbeError
from probe.models import Site

if TYPE_CHECKING:
    from sae_lens import SAE


def check_release(name: str) -> None:
    """Refuse a name that is not in SAELens' registry; nothing is downloaded.

    Raises:
        ProbeError: if the release or the SAE is unknown; the message suggests the nearest name.
    """
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    release, _, sae_id = name.partition("/")
    registry = get_pretrained_saes_directory()
    if release not in registry:
        raise ProbeError(
            f"there is no SAE folder {name}, and SAELens' registry has no release {release!r}; "
            f"{nearest(release, registry)}"
        )
    if sae_id not in (saes := registry[release].saes_map):
        raise ProbeError(f"the release {release} has no SAE {sae_id!r}; {nearest(sae_id, saes)}")


def load_release(name: str, site: Site | None = None) -> "SAE[Any]":
    """Load an SAE of SAELens' registry in float32, frozen, from the hub or its cache.

    A scale of the activations that is in the registry is folded into the SAE.

    Args:
        name: ``RELEASE/SAE_ID``.
        site: the site it reads; None takes the one that its files name.

    Raises:
        ProbeError: if there is no such SAE, it cannot be downloaded or read, it is not a plain SAE, or its site is
            unknown.
    """
    sae = read_release(name)
    if site is not None:
        sae.cfg.metadata.hook_name = name_of(site)
    check_plain({**sae.cfg.metadata.to_dict(), **sae.cfg.to_dict()}, f"the SAE {name}")
    site_of(sae)
    return sae.requires_grad_(False).eval()


def read_release(name: str) -> "SAE[Any]":
    """Load what SAELens' registry holds under a name, whether it is a plain SAE or not; see :func:`load_release`."""
    from sae_lens import SAE
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    check_release(name)
    release, _, sae_id = name.partition("/")
    entry = get_pretrained_saes_directory()[release]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a scale that the registry lacks, which is refused below
            sae = SAE.from_pretrained(release, sae_id)
    except (OSError, LookupError, RuntimeError, TypeError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ProbeError(
            f"the SAE {name} of {entry.repo_id} cannot be loaded ({reason}); without a network it must be in the hub's "
            f"cache: run SAE.from_pretrained({release!r}, {sae_id!r}) of sae_lens once where there is one"
        ) from error
    sae.cfg.metadata.model_name, sae.cfg.metadata.release = entry.model, release
    return sae
