"""Traces: rollouts of a model, their sentences, and how they are decoded and sampled."""

from probe.traces.branching import sample_branches as sample_branches
from probe.traces.degeneracy import (
    Degeneracy as Degeneracy,
    degeneracy as degeneracy,
    looping as looping,
    mean_degeneracy as mean_degeneracy,
)
from probe.traces.generate import (
    Emission as Emission,
    check_samples as check_samples,
    decode_greedy as decode_greedy,
    generate_traces as generate_traces,
    graded_traces as graded_traces,
    kept_rows as kept_rows,
    sampling_key as sampling_key,
    stream_greedy as stream_greedy,
    trace_shards as trace_shards,
)
from probe.traces.importing import (
    ImportedTraces as ImportedTraces,
    import_traces as import_traces,
    reader_of as reader_of,
)
from probe.traces.offsets import token_starts as token_starts
from probe.traces.pieces import (
    TextStream as TextStream,
    encode_after as encode_after,
    encode_exactly as encode_exactly,
    text_after as text_after,
    texts_after as texts_after,
    token_name as token_name,
    token_texts as token_texts,
    vocabulary_bytes as vocabulary_bytes,
)
from probe.traces.sampling import (
    PLAIN as PLAIN,
    draw as draw,
    probabilities as probabilities,
    random_key as random_key,
    sample_each as sample_each,
    sample_key as sample_key,
    sample_texts as sample_texts,
    stream_draws as stream_draws,
    stream_samples as stream_samples,
    token_at as token_at,
    uniform as uniform,
)
from probe.traces.sentences import split_sentences as split_sentences
from probe.traces.served import (
    is_served as is_served,
    open_servers as open_servers,
    served_shards as served_shards,
    served_traces as served_traces,
)
from probe.traces.served_samples import served_samples as served_samples
from probe.traces.trace import (
    Sentence as Sentence,
    Trace as Trace,
    Traces as Traces,
    first_sentence as first_sentence,
    make_trace as make_trace,
    sentences_of as sentences_of,
    write_traces as write_traces,
)
from probe.traces.viewer import loop_of as loop_of, traces_html as traces_html
