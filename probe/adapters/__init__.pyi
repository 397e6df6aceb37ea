# The public names of `probe.adapters`, read by editors and, at run time, by `__init__.py`.
from .exports.attach import Adapter as Adapter, attached as attached
from .exports.export import canonical as canonical, merged as merged
from .exports.gguf import (
    gguf_control_vector as gguf_control_vector,
    gguf_lora as gguf_lora,
    peft_of_gguf as peft_of_gguf,
)
from .exports.lora import lora_tensors as lora_tensors
from .exports.reloaded import compare_export as compare_export
from .exports.swap import Shell as Shell, shell as shell
from .sae.dictionaries import Dictionary as Dictionary, load_dictionary as load_dictionary
from .sae.folders import (
    random_sae as random_sae,
    save_saelens as save_saelens,
    save_sparsify as save_sparsify,
    shuffled_decoder as shuffled_decoder,
)
from .sae.insertion import (
    Ablate as Ablate,
    Boost as Boost,
    Insertion as Insertion,
    Noise as Noise,
    Replace as Replace,
    inserted as inserted,
    ordinary_tokens as ordinary_tokens,
    outliers as outliers,
)
from .sae.names import is_release as is_release
from .sae.plain import check_sae as check_sae, site_of as site_of
from .sae.reading import load_sae as load_sae
from .sae.releases import check_release as check_release
from .sae.train import sae_quality as sae_quality, train_sae as train_sae
from .training.config import (
    INSERTS as INSERTS,
    OBJECTIVES as OBJECTIVES,
    RANDOM as RANDOM,
    AdapterPlan as AdapterPlan,
    Row as Row,
    TuneConfig as TuneConfig,
)
from .training.objective import Objective as Objective
from .training.packing import Example as Example, examples_of as examples_of, pack as pack
from .training.processes import launched as launched, launched_processes as launched_processes
from .training.tune import Tuned as Tuned, tune as tune
from .verification.choose import (
    Chosen as Chosen,
    choose_latent as choose_latent,
    places_before as places_before,
)
from .verification.study import (
    MEASURES as MEASURES,
    EvaluationData as EvaluationData,
    measure as measure,
    random_like as random_like,
    summary as summary,
)
from .verification.verify import Verification as Verification, reach as reach, verify as verify
