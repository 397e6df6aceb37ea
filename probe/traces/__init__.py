"""Rollouts and their sentences."""

from probe.traces.batches import in_batches as in_batches
from probe.traces.batches import in_stream as in_stream
from probe.traces.generate import Emission as Emission
from probe.traces.generate import decode_greedy as decode_greedy
from probe.traces.generate import generate_traces as generate_traces
from probe.traces.generate import stream_greedy as stream_greedy
from probe.traces.sampling import sample as sample
from probe.traces.sampling import sample_texts as sample_texts
from probe.traces.sentences import split_sentences as split_sentences
from probe.traces.trace import Sentence as Sentence
from probe.traces.trace import Trace as Trace
from probe.traces.trace import Traces as Traces
from probe.traces.trace import make_trace as make_trace
