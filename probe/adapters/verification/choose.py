"""Which latent brings a behaviour about in a model: candidates by what is active before it, the choice by rollouts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from probe.adapters.sae.folders import site_of
from probe.adapters.sae.insertion import Boost, inserted
from probe.adapters.training.packing import Example, pack
from probe.errors import ProbeError
from probe.hooks import capture
from probe.models import Model
from probe.traces import Trace

if TYPE_CHECKING:
    from sae_lens import SAE

#: To which a candidate is raised, in multiples of its mean where it is active before the behaviour.
STRENGTHS = (0.5, 1.0, 1.5, 2.0)


@dataclass(frozen=True)
class Chosen:
    """A latent and how far it is raised.

    Attributes:
        tried: of every candidate and strength ``latent``, ``value`` and ``count``, the mean in rollouts; the first is
            the model as it is, with latent −1.
    """

    latent: int
    value: float
    tried: list[dict[str, float]]


def places_before(
    texts: Sequence[Example], traces: Sequence[Trace], count: Callable[[Trace], float]
) -> list[list[tuple[int, bool]]]:
    """Of each text the places before its sentences, and whether the sentence shows a behaviour.

    Args:
        texts: made of the traces, as by :func:`~probe.adapters.examples_of`.
        count: counts the behaviour in a trace; a sentence shows it if the trace up to its end counts more than up to
            its start.
    """
    found = []
    for text, trace in zip(texts, traces, strict=True):
        places, before = [], 0.0
        for i, sentence in enumerate(trace.sentences, 1):
            so_far = count(replace(trace, sentences=trace.sentences[:i]))
            places.append((text.start + sentence.token_start - 1, so_far > before))
            before = so_far
        found.append(places)
    return found


def choose_latent(
    model: Model,
    sae: "SAE[Any]",
    texts: Sequence[Example],
    ahead: Sequence[Sequence[tuple[int, bool]]],
    counted: Callable[[], Sequence[float]],
    *,
    candidates: int = 6,
    strengths: Sequence[float] = STRENGTHS,
    progress: bool = False,
) -> Chosen:
    """Find the latent which, raised at every token, brings the most of a behaviour about.

    Args:
        texts: in which the behaviour occurs.
        ahead: of each text the places before its sentences (0-based tokens, whose state predicts the first of the
            sentence), and whether the sentence shows the behaviour; as from :func:`places_before`.
        counted: rolls the model out as it is and counts the behaviour in each rollout, always on the same problems;
            not those that will be reported on.
        candidates: how many latents are tried: those whose activation tells places before the behaviour from others
            best, by the difference of means over the spread.
        progress: show a bar.

    Raises:
        ProbeError: if no sentence shows the behaviour, or all do, or no latent raises the count.
    """
    acts, shows = _ahead(model, sae, texts, ahead)
    if shows.all() or not shows.any():
        raise ProbeError(
            f"{int(shows.sum())} of {len(shows)} sentences show the behaviour: some have to, and some must not"
        )
    apart = acts[shows].mean(0) - acts[~shows].mean(0)
    spread = acts[shows].std(0) + acts[~shows].std(0) + 1e-3 * acts.amax().clamp(min=1e-6)
    some = (apart / spread).argsort(descending=True)[:candidates].tolist()
    tried = [{"latent": -1.0, "value": 0.0, "count": _mean(counted())}]
    cells = [(latent, strength) for latent in some for strength in strengths]
    for latent, strength in tqdm(cells, desc="latents", unit="try", disable=not progress):
        active = acts[shows, latent]
        value = strength * float(active[active > 0].mean()) if (active > 0).any() else 0.0
        if value > 0:
            with inserted(model, Boost(sae, (latent,), value)):
                tried.append({"latent": float(latent), "value": value, "count": _mean(counted())})
    best = max(tried, key=lambda each: each["count"])
    if best["latent"] < 0:
        raise ProbeError(
            f"none of {len(some)} latents raises the behaviour above {best['count']:.2f} a rollout: name latents, or "
            "try another SAE or site"
        )
    return Chosen(int(best["latent"]), best["value"], tried)


@torch.no_grad()
def _ahead(
    model: Model, sae: "SAE[Any]", texts: Sequence[Example], ahead: Sequence[Sequence[tuple[int, bool]]]
) -> tuple[torch.Tensor, torch.Tensor]:
    site, acts, shows = site_of(sae), [], []
    for text, places in zip(texts, ahead, strict=True):
        if not places:
            continue
        batch = pack(model, [text], len(text.ids))
        with capture(model, site, stop=False) as states:
            batch.logits(model)
        at = [place for place, _ in places]
        acts.append(sae.encode(states[site][0, at].to(sae.dtype)).float().cpu())
        shows += [shown for _, shown in places]
    return torch.cat(acts), torch.tensor(shows)


def _mean(counts: Sequence[float]) -> float:
    return sum(counts) / len(counts)
