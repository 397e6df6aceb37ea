# The public names of `probe.models`, read by editors and, at run time, by `__init__.py`.
from .config import (
    PLAIN_PROMPT as PLAIN_PROMPT,
    DeviceNames as DeviceNames,
    ModelConfig as ModelConfig,
    PairConfig as PairConfig,
)
from .content import content_hash as content_hash
from .decoders import CHUNKED as CHUNKED, check_frequencies as check_frequencies
from .fingerprint import (
    fingerprint as fingerprint,
    identity as identity,
    model_hash as model_hash,
    tensors_hash as tensors_hash,
    weights_hash as weights_hash,
)
from .limits import check_id as check_id, check_length as check_length, n_positions as n_positions
from .loading.bundled import find_pair as find_pair, list_pairs as list_pairs, pair_file as pair_file
from .loading.devices import as_device as as_device, as_dtype as as_dtype
from .loading.finding import config_of as config_of, find_source as find_source
from .loading.loading import load_model as load_model, load_without_weights as load_without_weights
from .loading.placement import Placement as Placement, Where as Where, as_placement as as_placement
from .loading.quantised import is_quantised as is_quantised
from .loading.shipped import bundled_folder as bundled_folder
from .loading.source import dtype_of as dtype_of
from .memory import (
    fitting as fitting,
    halving as halving,
    ran_out_of_memory as ran_out_of_memory,
    spare_memory as spare_memory,
)
from .model import Model as Model
from .pair import Pair as Pair, load_pair as load_pair, shares_weights as shares_weights
from .parameters import parameter_counts as parameter_counts, weights_memory as weights_memory
from .placed import (
    check_not_offloaded as check_not_offloaded,
    devices_of as devices_of,
    input_device as input_device,
    is_offloaded as is_offloaded,
    standing_in as standing_in,
    stored_tensors as stored_tensors,
    working_device as working_device,
)
from .prompts.chat import prompt_remarks as prompt_remarks
from .prompts.thinking import KNOWN_TAGS as KNOWN_TAGS, ThinkTags as ThinkTags, read_thinking as read_thinking
from .prompts.tokenizers import check_tokenizers as check_tokenizers
from .published import Published as Published
from .sampling import (
    BOTH_GREEDY as BOTH_GREEDY,
    GREEDY as GREEDY,
    PairSampling as PairSampling,
    Sampling as Sampling,
)
from .seeding import seeded as seeded
from .sharing import weight_of as weight_of
from .sites.architectures import ARCHITECTURES as ARCHITECTURES
from .sites.kinds import KINDS as KINDS
from .sites.listing import SiteTable as SiteTable, site_table as site_table
from .sites.places import Place as Place
from .sites.sites import Site as Site, all_sites as all_sites, place as place
from .sites.trial import without_hooks as without_hooks
from .sites.views import OPEN_BLOCK as OPEN_BLOCK, nnsight_value as nnsight_value
from .sizes import Sizes as Sizes
