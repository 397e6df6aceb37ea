"""One pass over traces: the mean activation of every sentence, at all sites asked for.

The model runs up to the deepest site and no further. Sentences are averaged where the model is, so only one vector per
sentence leaves the device.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from probe._files import object_hash
from probe.activations.sentences import SentenceActivations
from probe.activations.shards import ShardFolder
from probe.hooks import capture
from probe.models import Model, Site, place
from probe.traces import Trace, Traces


def harvest(
    model: Model,
    traces: Traces,
    sites: str | Site | Sequence[str | Site],
    *,
    folder: str | Path | None = None,
    batch_tokens: int = 8192,
    shard_traces: int = 512,
    progress: bool = False,
) -> SentenceActivations:
    """The mean over each sentence's tokens of a model's activations, reading the trace's prompt and its emitted tokens.

    A sentence without tokens of its own (it lies inside a token that began before it) has no vector.

    Args:
        model: who reads; usually, but not necessarily, who wrote the traces.
        traces: what is read.
        sites: where; all are read in the same pass. Sites of the residual stream's width only.
        folder: the result is streamed there, in shards; a later call with the same arguments makes only those that are
            missing or damaged.
        batch_tokens: how many tokens, padding included, one forward pass may hold (a longer trace goes alone).
        shard_traces: how many traces make a shard: the work that a kill can lose.
        progress: show a bar.

    Raises:
        ProbeError: if the model lacks a site, or ``folder`` holds another harvest.
    """
    several = [sites] if isinstance(sites, str | Site) else sites
    names = list(dict.fromkeys(str(Site.parse(site)) for site in several))
    for name in names:
        place(model.hf, name)  # refuse before any work is done
    rows = [_row(model, trace) for trace in traces]
    index = [(i, number) for i, row in enumerate(rows) for number in row.numbers]
    texts = [traces[i].sentence_text(traces[i].sentences[number]) for i, number in index]
    shards = [rows[start : start + shard_traces] for start in range(0, len(rows), shard_traces)]
    store = None
    if folder is not None:
        config = model.config
        about = {"model": model.name, "path": config.path, "revision": config.revision, "dtype": str(model.dtype)}
        inputs = {**about, "sites": names, "shard_traces": shard_traces, "rows": [asdict(row) for row in rows]}
        table = pa.table(
            {
                "trace": pa.array([i for i, _ in index], pa.int32()),
                "sentence": pa.array([number for _, number in index], pa.int32()),
                "problem_id": pa.array([traces[i].problem_id for i, _ in index], pa.string()),
                "text": pa.array(texts, pa.string()),
            }
        )
        store = ShardFolder.begin(Path(folder), object_hash(inputs), about, names, len(shards), table)
    made: list[dict[str, Tensor]] = []
    with tqdm(total=len(rows), desc=f"activations of {model.name}", unit="trace", disable=not progress) as bar:
        for number, shard in enumerate(shards):
            if store is None:
                made.append(_pool(model, shard, names, batch_tokens, bar))
            elif store.done(number):
                bar.update(len(shard))
            else:
                store.write(number, _pool(model, shard, names, batch_tokens, bar))
    if store is not None and folder is not None and shards:
        return SentenceActivations.load(folder)
    empty = torch.empty(0, model.d_model, dtype=model.dtype)
    vectors = {name: torch.cat([empty, *(shard[name] for shard in made)]) for name in names}
    return SentenceActivations(vectors, index, texts, model.name)


@dataclass(frozen=True)
class _Row:
    """What one trace asks of the pass: its ids, and the sentences that have tokens."""

    ids: tuple[int, ...]
    n_prompt: int
    numbers: tuple[int, ...]
    """Which of the trace's sentences."""
    lengths: tuple[int, ...]
    """How many tokens each has; together they are the emitted tokens."""


def _row(model: Model, trace: Trace) -> _Row:
    # As Model.prompt_ids: a chat template has written its own start token.
    prompt = model.tokenizer(trace.prompt, add_special_tokens=model.config.prompt != "chat").input_ids
    lengths = {number: s.token_end - s.token_start for number, s in enumerate(trace.sentences)}
    lengths = {number: length for number, length in lengths.items() if length}
    return _Row((*prompt, *trace.tokens), len(prompt), tuple(lengths), tuple(lengths.values()))


def _pool(
    model: Model, rows: Sequence[_Row], sites: Sequence[str], batch_tokens: int, bar: tqdm
) -> dict[str, Float[Tensor, "sentence d_model"]]:
    """The sentence vectors of some traces, per site, in the order of the traces."""
    first = torch.tensor([0, *(len(row.lengths) for row in rows)]).cumsum(0).tolist()
    pooled = {site: torch.empty(first[-1], model.d_model, dtype=model.dtype) for site in sites}
    for batch in _batches(rows, batch_tokens):
        where = torch.cat([torch.arange(first[i], first[i + 1]) for i in batch])
        for site, means in _pass(model, [rows[i] for i in batch], sites).items():
            pooled[site][where] = means.to("cpu", model.dtype)
        bar.update(len(batch))
    bar.update(sum(not row.lengths for row in rows))
    return pooled


def _batches(rows: Sequence[_Row], batch_tokens: int) -> Iterator[list[int]]:
    """Rows of similar length together, so that little is padding; rows without sentences are left out."""
    batch: list[int] = []
    for i in sorted((i for i, row in enumerate(rows) if row.lengths), key=lambda i: len(rows[i].ids)):
        if batch and (len(batch) + 1) * len(rows[i].ids) > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


@torch.no_grad()
def _pass(model: Model, rows: Sequence[_Row], sites: Sequence[str]) -> dict[str, Float[Tensor, "sentence d_model"]]:
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), model.pad_id)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        mask[i, : len(row.ids)] = 1
    spans = [(i * width + row.n_prompt, i * width + len(row.ids)) for i, row in enumerate(rows)]
    emitted = torch.cat([torch.arange(start, end) for start, end in spans])
    lengths = torch.tensor([length for row in rows for length in row.lengths])
    with capture(model, sites) as acts:
        model.hf(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False)
    emitted, lengths = emitted.to(model.device), lengths.to(model.device)
    return {site: _means(acts[site].flatten(0, 1)[emitted], lengths) for site in sites}


def _means(
    tokens: Float[Tensor, "token d_model"], lengths: Int[Tensor, " sentence"]
) -> Float[Tensor, "sentence d_model"]:
    """The mean of each run of ``lengths`` tokens, summed in float32 whatever the model's format."""
    return torch.segment_reduce(tokens.float(), "mean", lengths=lengths, axis=0)
