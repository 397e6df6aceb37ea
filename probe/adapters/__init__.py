"""SAE-tuning: SAEs inside a model, adapters trained through them, what they do, and where they can be taken."""

from probe.adapters.insertion import Ablate as Ablate
from probe.adapters.insertion import Boost as Boost
from probe.adapters.insertion import Insertion as Insertion
from probe.adapters.insertion import Noise as Noise
from probe.adapters.insertion import Replace as Replace
from probe.adapters.insertion import inserted as inserted
from probe.adapters.insertion import ordinary_tokens as ordinary_tokens
from probe.adapters.saes import load_sae as load_sae
from probe.adapters.saes import random_sae as random_sae
from probe.adapters.saes import save_sparsify as save_sparsify
from probe.adapters.saes import shuffled_decoder as shuffled_decoder
from probe.adapters.saes import site_of as site_of
