# The public names of `probe.taxonomy.falsify`, read by editors and, at run time, by `__init__.py`.
from .card import Card as Card, Trial as Trial
from .config import FalsifyConfig as FalsifyConfig
from .cues import Cue as Cue, find_cues as find_cues
from .detector import Detector as Detector
from .falsify import falsify as falsify, read_cards as read_cards
from .regenerate import Stability as Stability
