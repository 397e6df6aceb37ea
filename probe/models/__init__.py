"""Models and pairs: loading, prompts, tokenizer alignment, and the one table of sites.

Names are imported when they are first used: to list the pairs, no library that runs models is needed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probe.models.architectures import ARCHITECTURES as ARCHITECTURES
    from probe.models.architectures import KINDS as KINDS
    from probe.models.architectures import Place as Place
    from probe.models.bundled import bundled_folder as bundled_folder
    from probe.models.bundled import find_pair as find_pair
    from probe.models.bundled import list_pairs as list_pairs
    from probe.models.config import ModelConfig as ModelConfig
    from probe.models.config import PairConfig as PairConfig
    from probe.models.listing import SiteTable as SiteTable
    from probe.models.listing import site_table as site_table
    from probe.models.loading import as_device as as_device
    from probe.models.loading import as_dtype as as_dtype
    from probe.models.loading import load_model as load_model
    from probe.models.model import Model as Model
    from probe.models.pair import Pair as Pair
    from probe.models.pair import load_pair as load_pair
    from probe.models.sites import Site as Site
    from probe.models.sites import all_sites as all_sites
    from probe.models.sites import place as place
    from probe.models.tokenizers import check_tokenizers as check_tokenizers
    from probe.models.views import OPEN_BLOCK as OPEN_BLOCK
    from probe.models.views import nnsight_value as nnsight_value

_FILES = {
    "architectures": ("ARCHITECTURES", "KINDS", "Place"),
    "bundled": ("bundled_folder", "find_pair", "list_pairs"),
    "config": ("ModelConfig", "PairConfig"),
    "loading": ("as_device", "as_dtype", "load_model"),
    "model": ("Model",),
    "pair": ("Pair", "load_pair"),
    "listing": ("SiteTable", "site_table"),
    "sites": ("Site", "all_sites", "place"),
    "tokenizers": ("check_tokenizers",),
    "views": ("OPEN_BLOCK", "nnsight_value"),
}
_PUBLIC = {name: f"{__name__}.{file}" for file, names in _FILES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = found
    return found
