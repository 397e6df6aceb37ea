# The public names of `probe.steering`, read by editors and, at run time, by `__init__.py`.
from .base_policy import (
    BasePolicy as BasePolicy,
    LearnedPolicy as LearnedPolicy,
    learn_policy as learn_policy,
    policy_data as policy_data,
    residual_bits as residual_bits,
)
from .coming import (
    ComingReader as ComingReader,
    learn_reader as learn_reader,
    predicting_states as predicting_states,
)
from .config import PolicyConfig as PolicyConfig, SteeringConfig as SteeringConfig
from .directions import (
    decoder_rows as decoder_rows,
    difference_of_means as difference_of_means,
    difference_of_texts as difference_of_texts,
)
from .gates import (
    GateBatch as GateBatch,
    collect_gates as collect_gates,
    text_batches as text_batches,
    token_behaviours as token_behaviours,
)
from .kept_gates import KeptGates as KeptGates, keep_gates as keep_gates
from .learn import (
    Learned as Learned,
    learn_mechanism as learn_mechanism,
    learn_vectors as learn_vectors,
    steering_layer as steering_layer,
    typical_coordinate as typical_coordinate,
)
from .mechanism import (
    FixedVectors as FixedVectors,
    Mechanism as Mechanism,
    random_like as random_like,
)
from .saving import check_fits as check_fits
from .sentences import learn_on_sentences as learn_on_sentences, sentence_batches as sentence_batches
from .vectors import (
    BehaviourVectors as BehaviourVectors,
    RankOne as RankOne,
    load_mechanism as load_mechanism,
)
