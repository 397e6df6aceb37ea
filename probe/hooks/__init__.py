"""Reading and writing activations at named sites: plain torch hooks, and the same model seen by other libraries."""

from probe.hooks.reading import Captured as Captured
from probe.hooks.reading import capture as capture
from probe.hooks.runner import Runner as Runner
from probe.hooks.runner import Step as Step
from probe.hooks.teacher import Forced as Forced
from probe.hooks.teacher import force as force
from probe.hooks.teacher import read_forced as read_forced
from probe.hooks.upper import UpperLayers as UpperLayers
from probe.hooks.upper import additive_masks as additive_masks
from probe.hooks.upper import causal_masks as causal_masks
from probe.hooks.views import nnsight_value as nnsight_value
from probe.hooks.views import to_nnsight as to_nnsight
from probe.hooks.views import to_transformer_lens as to_transformer_lens
from probe.hooks.writing import edit as edit
