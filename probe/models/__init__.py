"""Models and pairs: loading, prompts, tokenizer alignment, and the one table of sites."""

from probe.models.architectures import ARCHITECTURES as ARCHITECTURES
from probe.models.architectures import KINDS as KINDS
from probe.models.architectures import Place as Place
from probe.models.bundled import bundled_folder as bundled_folder
from probe.models.config import ModelConfig as ModelConfig
from probe.models.config import PairConfig as PairConfig
from probe.models.loading import Model as Model
from probe.models.loading import as_device as as_device
from probe.models.loading import as_dtype as as_dtype
from probe.models.loading import load_model as load_model
from probe.models.pair import Pair as Pair
from probe.models.pair import find_pair as find_pair
from probe.models.pair import list_pairs as list_pairs
from probe.models.pair import load_pair as load_pair
from probe.models.site_table import SiteTable as SiteTable
from probe.models.site_table import site_table as site_table
from probe.models.sites import Site as Site
from probe.models.sites import all_sites as all_sites
from probe.models.sites import place as place
from probe.models.tokenizers import check_tokenizers as check_tokenizers
from probe.models.views import nnsight_value as nnsight_value
