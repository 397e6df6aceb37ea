"""Falsification cards: does a behaviour follow the state of the reasoning, or its cue words?"""

from probe.taxonomy.falsify.card import Card as Card, Trial as Trial
from probe.taxonomy.falsify.config import FalsifyConfig as FalsifyConfig
from probe.taxonomy.falsify.cues import Cue as Cue, find_cues as find_cues
from probe.taxonomy.falsify.detector import Detector as Detector
from probe.taxonomy.falsify.falsify import falsify as falsify, read_cards as read_cards
from probe.taxonomy.falsify.regenerate import Stability as Stability
