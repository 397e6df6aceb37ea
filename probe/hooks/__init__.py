"""Reading and writing activations at named sites, at the tokens selected, by plain torch hooks."""

from probe.hooks.captured import Captured as Captured
from probe.hooks.operations import Add as Add
from probe.hooks.operations import Apply as Apply
from probe.hooks.operations import Clamp as Clamp
from probe.hooks.operations import Operation as Operation
from probe.hooks.operations import ProjectOut as ProjectOut
from probe.hooks.operations import Scale as Scale
from probe.hooks.operations import Swap as Swap
from probe.hooks.passes import Pass as Pass
from probe.hooks.reading import as_sites as as_sites
from probe.hooks.reading import capture as capture
from probe.hooks.runner import Runner as Runner
from probe.hooks.runner import Step as Step
from probe.hooks.selection import Selection as Selection
from probe.hooks.selection import Tokens as Tokens
from probe.hooks.stream import Lane as Lane
from probe.hooks.stream import Now as Now
from probe.hooks.stream import stream as stream
from probe.hooks.teacher import Forced as Forced
from probe.hooks.teacher import force as force
from probe.hooks.teacher import read_forced as read_forced
from probe.hooks.upper import UpperLayers as UpperLayers
from probe.hooks.upper import additive_masks as additive_masks
from probe.hooks.upper import causal_masks as causal_masks
from probe.hooks.writing import edit as edit
