"""Mechanisms and policies, and how each is learned."""

from probe.steering.base_policy import BasePolicy, PolicyConfig, learn_policy, policy_data, residual_bits
from probe.steering.coming import ComingReader, learn_reader
from probe.steering.directions import decoder_rows, difference_of_means
from probe.steering.gates import GateBatch, collect_gates, token_behaviours
from probe.steering.learn import Learned, SteeringConfig, learn_mechanism, learn_vectors, steering_layer
from probe.steering.mechanism import FixedVectors, Mechanism, load_mechanism, random_like
from probe.steering.sentences import learn_on_sentences, sentence_batches
from probe.steering.vectors import BehaviourVectors, RankOne

__all__ = [
    "BasePolicy",
    "BehaviourVectors",
    "ComingReader",
    "FixedVectors",
    "GateBatch",
    "Learned",
    "Mechanism",
    "PolicyConfig",
    "RankOne",
    "SteeringConfig",
    "collect_gates",
    "decoder_rows",
    "difference_of_means",
    "learn_mechanism",
    "learn_on_sentences",
    "learn_policy",
    "learn_reader",
    "learn_vectors",
    "load_mechanism",
    "policy_data",
    "random_like",
    "residual_bits",
    "sentence_batches",
    "steering_layer",
    "token_behaviours",
]
