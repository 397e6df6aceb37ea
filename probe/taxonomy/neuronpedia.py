"""A taxonomy as records of Neuronpedia: one feature for each behaviour, with its top sentences and its name.

The three files of JSON lines have the field names of Neuronpedia's database (``Neuron``, ``Activation``,
``Explanation``): ``features.jsonl``, ``activations.jsonl`` and ``explanations.jsonl``. Fields that identify an account
there (``creatorId``, ``authorId``) are left to whoever imports them.

All values are latents of ``taxonomy.sae``, the SAE that ``taxonomy.save`` exports, on raw activations, so they equal
what Neuronpedia computes from that SAE. Outlier tokens, to which the taxonomy does not apply, have value zero.
"""

import json
import re
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probe.activations import Document, Rows, SentenceActivations, by_rows, documents_of, in_chunks
from probe.errors import ProbeError
from probe.files import write_text
from probe.hooks import capture
from probe.models import Model, Site
from probe.progress import progress_bar
from probe.taxonomy.taxonomy import Taxonomy
from probe.traces import Traces, token_name, token_texts

#: Tokens shown on each side of a sentence.
_CONTEXT = 32
_TOP_LOGITS = 10
_KINDS = {"resid_post": "res", "mlp_out": "mlp", "attn_out": "att"}


def write_neuronpedia(
    folder: str | Path,
    taxonomy: Taxonomy,
    model: Model,
    traces: Traces,
    activations: SentenceActivations,
    *,
    examples: int = 20,
    names: Sequence[str] | None = None,
    progress: bool = False,
) -> Path:
    """Write a taxonomy's features, top activations and explanations for Neuronpedia.

    The top sentences of a behaviour are those of ``activations`` with its largest latents. The model runs over their
    traces again, because the values in the files belong to tokens: those of the sentence and 32 tokens on each side.

    Args:
        folder: where the three files are written.
        taxonomy: the behaviours.
        model: reads the traces. Its unembedding gives the tokens that a direction promotes and suppresses: the largest
            and smallest logits of the decoder's row by :meth:`Model.unembed`, minus the logits of a zero vector.
        traces: the traces that the activations were harvested from.
        activations: sentence vectors at the taxonomy's site. They give the top sentences and ``frac_nonzero``, the
            share of sentences with a latent above zero.
        examples: the number of sentences for each behaviour; fewer if fewer have a latent above zero.
        names: the names of the behaviours; None takes the taxonomy's labels.
        progress: show a progress bar.

    Raises:
        ProbeError: if the arguments do not belong together or the vectors are not finite. Nothing is written then.
    """
    folder = Path(folder)
    names = taxonomy.labels if names is None else list(names)
    layer = _source(taxonomy)
    _check(taxonomy, model, traces, activations, examples, names)
    top, active = _top(taxonomy, activations.rows(taxonomy.site), examples)
    logits = _logits(model, taxonomy.directions)
    model_id = re.sub(r"[^a-z0-9_-]+", "-", (taxonomy.model_name or model.name).lower())
    common = [{"modelId": model_id, "layer": layer, "index": str(i)} for i in range(taxonomy.n_behaviours)]
    wanted = [(*activations.index[row], i, rank) for i, rows in enumerate(top) for rank, row in enumerate(rows)]
    read: dict[tuple[int, int], dict[str, Any]] = {}
    with progress_bar(total=len(wanted), desc="tokens for Neuronpedia", unit="sentence", show=progress) as bar:
        # Trace by trace: the model runs over each once, and the tokens of one trace are held.
        for trace, some in groupby(sorted(wanted), key=itemgetter(0)):
            document, said, latents = _of_trace(taxonomy, model, traces, trace)
            for _, sentence, behaviour, rank in some:
                start, end = document.spans[sentence]
                at = slice(max(0, start - _CONTEXT), min(len(document.ids), end + _CONTEXT))
                values = latents[at, behaviour].tolist()
                place = max(range(len(values)), key=values.__getitem__)
                read[behaviour, rank] = {
                    "id": f"{model_id}-{layer}-{behaviour}-{rank}",
                    **common[behaviour],
                    "tokens": said[at],
                    "values": values,
                    "maxValue": values[place],
                    "maxValueTokenIndex": place,
                    "minValue": min(values),
                    "dataIndex": f"{traces[trace].problem_id}/{sentence}",
                    "dataSource": traces.problems_name,
                }
                bar.update()
    shown = [read[at] for at in sorted(read)]
    features = [
        {
            **common[i],
            "hookName": Site.parse(taxonomy.site).lens,
            "maxActApprox": max((each["maxValue"] for each in shown if each["index"] == str(i)), default=0.0),
            "frac_nonzero": active[i],
            **_extremes(model, logits[i]),
        }
        for i in range(taxonomy.n_behaviours)
    ]
    explanations = [
        {
            "id": f"{model_id}-{layer}-{i}",
            **common[i],
            "description": name,
            "typeName": "probe-label",
            "explanationModelName": "",
        }
        for i, name in enumerate(names)
    ]
    # The features last: a folder that has them is complete.
    for kind, records in (("activations", shown), ("explanations", explanations), ("features", features)):
        lines = (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records)
        write_text(folder / f"{kind}.jsonl", "".join(lines))
    return folder


def _source(taxonomy: Taxonomy) -> str:
    """What Neuronpedia calls a layer: its number, who made the SAE, the kind of site and the number of features."""
    site = Site.parse(taxonomy.site)
    if site.layer is None:
        raise ProbeError(f"Neuronpedia's features belong to layers, but {site} to none; fit a taxonomy at resid_post")
    kind = _KINDS.get(site.kind, site.kind.replace("_", "-"))
    return f"{site.layer}-probe-{kind}-{taxonomy.n_behaviours}"


def _check(
    taxonomy: Taxonomy,
    model: Model,
    traces: Traces,
    activations: SentenceActivations,
    examples: int,
    names: Sequence[str],
) -> None:
    if taxonomy.site not in activations.vectors:
        harvested = ", ".join(activations.sites) or "no site"
        raise ProbeError(
            f"the taxonomy reads {taxonomy.site}, but the traces were harvested at {harvested}; harvest them there"
        )
    if len(names) != taxonomy.n_behaviours:
        raise ProbeError(f"{len(names)} names were given for {taxonomy.n_behaviours} behaviours; give one for each")
    if examples < 1:
        raise ProbeError(f"examples={examples} shows nothing; use at least 1")
    if not len(activations):
        raise ProbeError("there are no sentences to show; harvest the traces first")
    for row, ((trace, sentence), text) in enumerate(zip(activations.index, activations.texts, strict=True)):
        there = trace < len(traces) and sentence < len(traces[trace].sentences)
        if not there or traces[trace].sentence_text(traces[trace].sentences[sentence]) != text:
            raise ProbeError(
                f"row {row} of the activations is not a sentence of these traces; give the traces that were harvested"
            )
    vectors = activations.rows(taxonomy.site)
    bad = int((~by_rows(lambda some: some.isfinite().all(1), vectors)).sum())
    if bad:
        raise ProbeError(f"{bad} of {len(vectors)} sentence vectors at {taxonomy.site} are not finite; harvest again")
    width = taxonomy.directions.shape[1]
    if vectors.shape[1] != width or model.d_model != width:
        raise ProbeError(
            f"the taxonomy reads width {width}, the activations have {vectors.shape[1]} and {model.name} "
            f"has {model.d_model}; use the model that it was fitted on"
        )


@torch.no_grad()
def _latents(taxonomy: Taxonomy, vectors: Float[Tensor, "row d_model"]) -> Float[Tensor, "row behaviour"]:
    """The exported SAE's latents, zero for outliers."""
    return taxonomy.sae.encode(vectors) * taxonomy.normaliser.keep(vectors)[:, None]


def _top(taxonomy: Taxonomy, x: Rows, examples: int) -> tuple[list[list[int]], list[float]]:
    """For each behaviour, the rows with its largest latents above zero, and the share of rows with one above zero."""
    values, rows = torch.zeros(taxonomy.n_behaviours, 0), torch.zeros(taxonomy.n_behaviours, 0, dtype=torch.long)
    active, done = torch.zeros(taxonomy.n_behaviours, dtype=torch.long), 0
    for chunk in in_chunks(x):
        latents = _latents(taxonomy, chunk.float().cpu()).T
        active += (latents > 0).sum(1)
        here = torch.arange(done, done + len(chunk)).expand_as(latents)
        done += len(chunk)
        # Of equal latents the earlier row comes first: those kept so far are before the others, and sorting is stable.
        values, order = torch.cat([values, latents], 1).sort(descending=True, stable=True)
        values, rows = values[:, :examples].clone(), torch.cat([rows, here], 1).gather(1, order[:, :examples])
    top = [own[found > 0].tolist() for own, found in zip(rows, values, strict=True)]
    return top, (active.float() / len(x)).tolist()


@torch.no_grad()
def _of_trace(
    taxonomy: Taxonomy, model: Model, traces: Traces, trace: int
) -> tuple[Document, list[str], Float[Tensor, "pos behaviour"]]:
    """A trace with the text and the latents of each of its tokens."""
    (document,) = documents_of(model, traces[trace : trace + 1])
    ids = torch.tensor([document.ids], device=model.device)
    with capture(model, taxonomy.site) as acts:
        model.hf(input_ids=ids, use_cache=False)
    said = token_texts(document.ids, model.decode, model.tokenizer)
    return document, said, _latents(taxonomy, acts[taxonomy.site][0].float().cpu())


@torch.no_grad()
def _logits(model: Model, directions: Float[Tensor, "behaviour d_model"]) -> Float[Tensor, "behaviour vocab"]:
    """What each direction adds to the logits through the last norm, without the effect of the norm's bias."""
    directions = directions.to(model.device, model.dtype)
    logits = model.unembed(directions) - model.unembed(torch.zeros_like(directions[:1]))
    return logits[:, : len(model.tokenizer)].float().cpu()


def _extremes(model: Model, logits: Float[Tensor, " vocab"]) -> dict[str, list[Any]]:
    """The tokens that a direction promotes and suppresses most, strongest first."""
    found: dict[str, list[Any]] = {}
    for name, largest in (("pos", True), ("neg", False)):
        values, tokens = logits.topk(min(_TOP_LOGITS, len(logits)), largest=largest)
        found[f"{name}_str"] = [token_name(token, model.decode, model.tokenizer) for token in tokens.tolist()]
        found[f"{name}_values"] = values.tolist()
    return found
