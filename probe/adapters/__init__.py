"""SAE-tuning: trains LoRA adapters through frozen SAEs, verifies what they do, attaches and exports them.

``sae``: SAEs on disk and inside a model. ``training``: the adapters. ``verification``: what an adapter does.
``exports``: adapters on a model and in other formats.
"""

from probe.adapters.exports.attach import Adapter as Adapter, attached as attached
from probe.adapters.exports.export import canonical as canonical, merged as merged
from probe.adapters.exports.gguf import (
    gguf_control_vector as gguf_control_vector,
    gguf_lora as gguf_lora,
    peft_of_gguf as peft_of_gguf,
)
from probe.adapters.exports.lora import lora_tensors as lora_tensors
from probe.adapters.exports.reloaded import compare_export as compare_export
from probe.adapters.exports.swap import Shell as Shell, shell as shell
from probe.adapters.sae.folders import (
    random_sae as random_sae,
    save_saelens as save_saelens,
    save_sparsify as save_sparsify,
    shuffled_decoder as shuffled_decoder,
)
from probe.adapters.sae.insertion import (
    Ablate as Ablate,
    Boost as Boost,
    Insertion as Insertion,
    Noise as Noise,
    Replace as Replace,
    inserted as inserted,
    ordinary_tokens as ordinary_tokens,
)
from probe.adapters.sae.plain import check_sae as check_sae, site_of as site_of
from probe.adapters.sae.reading import load_sae as load_sae
from probe.adapters.sae.train import sae_quality as sae_quality, train_sae as train_sae
from probe.adapters.training.objective import INSERTS as INSERTS, OBJECTIVES as OBJECTIVES, Objective as Objective
from probe.adapters.training.packing import Example as Example, examples_of as examples_of, pack as pack
from probe.adapters.training.plan import AdapterPlan as AdapterPlan
from probe.adapters.training.processes import launched as launched, launched_processes as launched_processes
from probe.adapters.training.tune import TuneConfig as TuneConfig, Tuned as Tuned, tune as tune
from probe.adapters.verification.choose import (
    Chosen as Chosen,
    choose_latent as choose_latent,
    places_before as places_before,
)
from probe.adapters.verification.study import (
    MEASURES as MEASURES,
    RANDOM as RANDOM,
    EvaluationData as EvaluationData,
    Row as Row,
    measure as measure,
    random_like as random_like,
    summary as summary,
)
from probe.adapters.verification.verify import Verification as Verification, reach as reach, verify as verify
