"""Circuits: which edges between heads and MLPs carry a behaviour, by gradients and exactly, and how much they keep."""

from probe.circuits.attribute import METHODS as METHODS
from probe.circuits.attribute import attribute as attribute
from probe.circuits.circuit import Circuit as Circuit
from probe.circuits.faithful import Faithfulness as Faithfulness
from probe.circuits.faithful import faithfulness as faithfulness
from probe.circuits.faithful import kept_by as kept_by
from probe.circuits.graph import Graph as Graph
from probe.circuits.graph import Reader as Reader
from probe.circuits.heads import heads_scaled as heads_scaled
from probe.circuits.heads import matched_heads as matched_heads
from probe.circuits.heads import strongest_heads as strongest_heads
from probe.circuits.lens import EdgeLens as EdgeLens
from probe.circuits.pairs import Pairs as Pairs
from probe.circuits.pairs import behaviour_pairs as behaviour_pairs
from probe.circuits.pairs import divergence as divergence
from probe.circuits.pairs import logit_difference as logit_difference
from probe.circuits.pairs import read_pairs as read_pairs
