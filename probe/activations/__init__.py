"""What a model's residual stream holds at each sentence."""

from probe.activations.harvest import harvest as harvest
from probe.activations.sentences import SentenceActivations as SentenceActivations
