"""A taxonomy in the records of Neuronpedia: one feature a behaviour, its top sentences token by token, its name.

Three files of JSON lines, with the field names of Neuronpedia's database (``Neuron``, ``Activation``, ``Explanation``):
``features.jsonl``, ``activations.jsonl`` and ``explanations.jsonl``. What identifies an account there (``creatorId``,
``authorId``) is left for whoever imports them.

All values are latents of ``taxonomy.sae``, the SAE that ``taxonomy.save`` exports, on raw activations: what Neuronpedia
computes from that SAE is what these files say. Outlier tokens, to which the taxonomy does not apply, have value zero.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from probe.activations import Document, SentenceActivations, documents_of
from probe.errors import ProbeError
from probe.files import write_text
from probe.hooks import capture
from probe.models import Model, Site
from probe.taxonomy.taxonomy import Taxonomy
from probe.traces import Traces

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

    The top sentences of a behaviour are those of ``activations`` with its largest latents. Their traces are read once
    more, because the values that are shown belong to tokens, not to sentences: those of the sentence and of 32 tokens
    on each side.

    Args:
        folder: the three files are written there.
        taxonomy: the behaviours.
        model: who reads the traces, and whose unembedding says which tokens a direction speaks for: the largest and the
            smallest logits of the decoder's row by :meth:`Model.unembed`, less those of no direction at all.
        traces: what the activations were harvested from.
        activations: sentence vectors at the taxonomy's site; they give the top sentences and, as the share of sentences
            with a latent above zero, ``frac_nonzero``.
        examples: how many sentences to show for each behaviour; fewer where fewer have a latent above zero.
        names: what the behaviours are called; by default the taxonomy's labels.
        progress: show a bar.

    Returns:
        The folder.

    Raises:
        ProbeError: if the arguments do not belong together or the vectors are not finite; nothing is written then.
    """
    folder = Path(folder)
    names = taxonomy.labels if names is None else list(names)
    layer = _source(taxonomy)
    _check(taxonomy, model, traces, activations, examples, names)
    vectors = activations.vectors[taxonomy.site].float().cpu()
    latents = _latents(taxonomy, vectors)
    logits = _logits(model, taxonomy.directions)
    model_id = re.sub(r"[^a-z0-9_-]+", "-", (taxonomy.model_name or model.name).lower())
    common = [{"modelId": model_id, "layer": layer, "index": str(i)} for i in range(taxonomy.n_behaviours)]
    shown: list[dict[str, Any]] = []
    top = [_top(latents[:, i], examples) for i in range(taxonomy.n_behaviours)]
    documents = _Reader(taxonomy, model, traces)
    with tqdm(total=sum(map(len, top)), desc="tokens for Neuronpedia", unit="sentence", disable=not progress) as bar:
        for behaviour, rows in enumerate(top):
            for rank, row in enumerate(rows):
                trace, sentence = activations.index[row]
                tokens, values = documents.read(trace, sentence, behaviour)
                place = max(range(len(values)), key=values.__getitem__)
                shown.append(
                    {
                        "id": f"{model_id}-{layer}-{behaviour}-{rank}",
                        **common[behaviour],
                        "tokens": tokens,
                        "values": values,
                        "maxValue": values[place],
                        "maxValueTokenIndex": place,
                        "minValue": min(values),
                        "dataIndex": f"{traces[trace].problem_id}/{sentence}",
                        "dataSource": traces.problems_name,
                    }
                )
                bar.update()
    features = [
        {
            **common[i],
            "hookName": Site.parse(taxonomy.site).lens,
            "maxActApprox": max((each["maxValue"] for each in shown if each["index"] == str(i)), default=0.0),
            "frac_nonzero": (latents[:, i] > 0).float().mean().item(),
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
    # The features last: a folder that has them is whole.
    for kind, records in (("activations", shown), ("explanations", explanations), ("features", features)):
        lines = (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records)
        write_text(folder / f"{kind}.jsonl", "".join(lines))
    return folder


def _source(taxonomy: Taxonomy) -> str:
    """What Neuronpedia calls a layer: the number of the layer, who made it, the kind of site, how many features."""
    site = Site.parse(taxonomy.site)
    if site.layer is None:
        raise ProbeError(f"Neuronpedia's features belong to layers, and {site} to none; fit a taxonomy at resid_post")
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
        harvested = ", ".join(activations.sites) or "none"
        raise ProbeError(
            f"the activations are not of {taxonomy.site}, where the taxonomy reads; harvested: {harvested}"
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
            raise ProbeError(f"row {row} of the activations is no sentence of these traces; give those that were read")
    vectors = activations.vectors[taxonomy.site]
    bad = int((~vectors.isfinite()).any(1).sum())
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


def _top(latents: Float[Tensor, " row"], examples: int) -> list[int]:
    values, rows = latents.sort(descending=True, stable=True)
    return rows[: min(examples, int((values > 0).sum()))].tolist()


class _Reader:
    """Tokens around a sentence, with a behaviour's latent at each; a trace is run once."""

    def __init__(self, taxonomy: Taxonomy, model: Model, traces: Traces) -> None:
        self.taxonomy, self.model, self.traces = taxonomy, model, traces
        self._documents: dict[int, tuple[Document, Tensor]] = {}

    def read(self, trace: int, sentence: int, behaviour: int) -> tuple[list[str], list[float]]:
        document, latents = self._document(trace)
        start, end = document.spans[sentence]
        shown = slice(max(0, start - _CONTEXT), min(len(document.ids), end + _CONTEXT))
        tokens = [self.model.decode([token]) for token in document.ids[shown]]
        return tokens, latents[shown, behaviour].tolist()

    @torch.no_grad()
    def _document(self, trace: int) -> tuple[Document, Float[Tensor, "pos behaviour"]]:
        if trace not in self._documents:
            (document,) = documents_of(self.model, self.traces[trace : trace + 1])
            ids = torch.tensor([document.ids], device=self.model.device)
            with capture(self.model, self.taxonomy.site) as acts:
                self.model.hf(input_ids=ids, use_cache=False)
            states = acts[self.taxonomy.site][0].float().cpu()
            self._documents[trace] = document, _latents(self.taxonomy, states)
        return self._documents[trace]


@torch.no_grad()
def _logits(model: Model, directions: Float[Tensor, "behaviour d_model"]) -> Float[Tensor, "behaviour vocab"]:
    """What each direction adds to the logits through the last norm, whose bias is none of the direction's doing."""
    directions = directions.to(model.device, model.dtype)
    logits = model.unembed(directions) - model.unembed(torch.zeros_like(directions[:1]))
    return logits[:, : len(model.tokenizer)].float().cpu()


def _extremes(model: Model, logits: Float[Tensor, " vocab"]) -> dict[str, list[Any]]:
    """The tokens that a direction speaks for and against, most so first."""
    found: dict[str, list[Any]] = {}
    for name, largest in (("pos", True), ("neg", False)):
        values, tokens = logits.topk(min(_TOP_LOGITS, len(logits)), largest=largest)
        found[f"{name}_str"] = [model.decode([token]) for token in tokens.tolist()]
        found[f"{name}_values"] = values.tolist()
    return found
