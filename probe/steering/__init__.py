"""Mechanisms and how they are learned."""

from probe.steering.gates import GateBatch, collect_gates
from probe.steering.learn import Learned, SteeringConfig, learn_vectors, steering_layer
from probe.steering.vectors import BehaviourVectors, random_like

__all__ = [
    "BehaviourVectors",
    "GateBatch",
    "Learned",
    "SteeringConfig",
    "collect_gates",
    "learn_vectors",
    "random_like",
    "steering_layer",
]
