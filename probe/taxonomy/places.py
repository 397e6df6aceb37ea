"""Where a thinking model is read."""

from collections.abc import Sequence

from probe.errors import ProbeError
from probe.models import Model, Site, place


def taxonomy_sites(model: Model, sites: Sequence[str], *, spread: int = 1, decoded: bool = False) -> tuple[str, ...]:
    """Return the sites at which a thinking model is read: those given, or evenly spaced blocks.

    Evenly spaced blocks leave out the first and the last sixth: early on, the mean over a sentence is little more than
    its words, which makes behaviours easy to distinguish for the wrong reason; late, it predicts what comes next.

    Args:
        model: the thinking model.
        sites: for example ``"resid_post.2"``; empty for evenly spaced blocks, the middle one for a ``spread`` of 1.
        spread: the maximum number of blocks.
        decoded: whether a hybrid will be decoded with the taxonomy, which needs ``resid_post`` sites.

    Raises:
        ProbeError: if the model has no such site, decoding cannot read it, or it is given twice.
    """
    n = model.n_layers
    inner = range(-(-n // 6), max(n - n // 6, 1)) or range(n)
    few = min(spread, len(inner))
    layers = [n // 2] if few == 1 else [inner[round(i * (len(inner) - 1) / (few - 1))] for i in range(few)]
    found = [Site.parse(site) for site in sites or [f"resid_post.{layer}" for layer in layers]]
    for site in found:
        if decoded and (site.kind != "resid_post" or site.layer is None or site.layer >= model.n_layers):
            last = model.n_layers - 1
            raise ProbeError(
                f"taxonomy.sites has {site}; decoding reads {model.name} at resid_post.0 to resid_post.{last}"
            )
        place(model.hf, site)
    names = tuple(map(str, found))
    if len(set(names)) < len(names):
        raise ProbeError(f"taxonomy.sites names a site twice: {', '.join(names)}")
    return names
