"""Mechanisms and policies: what is added to the base model and when, and how each is learned."""

from probe.steering.base_policy import (
    BasePolicy as BasePolicy,
    LearnedPolicy as LearnedPolicy,
    PolicyConfig as PolicyConfig,
    learn_policy as learn_policy,
    policy_data as policy_data,
    residual_bits as residual_bits,
)
from probe.steering.coming import (
    ComingReader as ComingReader,
    learn_reader as learn_reader,
    predicting_states as predicting_states,
)
from probe.steering.directions import decoder_rows as decoder_rows, difference_of_means as difference_of_means
from probe.steering.gates import (
    GateBatch as GateBatch,
    collect_gates as collect_gates,
    text_batches as text_batches,
    token_behaviours as token_behaviours,
)
from probe.steering.learn import (
    Learned as Learned,
    SteeringConfig as SteeringConfig,
    learn_mechanism as learn_mechanism,
    learn_vectors as learn_vectors,
    steering_layer as steering_layer,
    typical_coordinate as typical_coordinate,
)
from probe.steering.mechanism import (
    FixedVectors as FixedVectors,
    Mechanism as Mechanism,
    load_mechanism as load_mechanism,
    random_like as random_like,
)
from probe.steering.saving import check_fits as check_fits
from probe.steering.sentences import learn_on_sentences as learn_on_sentences, sentence_batches as sentence_batches
from probe.steering.vectors import BehaviourVectors as BehaviourVectors, RankOne as RankOne
