"""Finds the latent that causes a behaviour: candidates are active before it, and rollouts decide between them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from probe.adapters.sae.insertion import Boost, inserted
from probe.adapters.sae.plain import check_sae
from probe.adapters.training.packing import Example, pack
from probe.errors import ProbeError
from probe.hooks import capture
from probe.models import Model
from probe.progress import progress_bar
from probe.taxonomy import Behaviour
from probe.traces import Trace

if TYPE_CHECKING:
    from sae_lens import SAE

#: Values to which a candidate is raised, in multiples of its mean activation before the behaviour.
STRENGTHS = (0.5, 1.0, 1.5, 2.0)


@dataclass(frozen=True, repr=False)
class Chosen:
    """A latent and the value to which it is raised.

    Attributes:
        latent: its number.
        value: the activation to which it is raised, in the SAE's units.
        tried: for each candidate and strength its ``latent``, ``value`` and ``count``, the mean in rollouts; the first
            entry is the unchanged model, with latent −1.
    """

    latent: int
    value: float
    tried: list[dict[str, float]]

    def __repr__(self) -> str:
        return f"Chosen(latent {self.latent} raised to {self.value:.3g}, of {len(self.tried) - 1} tried)"


def places_before(
    texts: Sequence[Example], traces: Sequence[Trace], behaviour: Behaviour
) -> list[list[tuple[int, bool]]]:
    """Find the place before each sentence, and whether the sentence shows a behaviour.

    Args:
        texts: made from the traces, as by :func:`~probe.adapters.examples_of`.
        traces: rollouts.
        behaviour: what a sentence shows or does not.

    Returns:
        For each text and each sentence of its trace, the index of the last token before the sentence, and whether the
        sentence shows the behaviour.
    """
    return [
        [(text.start + at.token_start - 1, shown) for at, shown in zip(trace.sentences, marks, strict=True)]
        for text, trace, marks in zip(texts, traces, behaviour.marks(traces), strict=True)
    ]


def choose_latent(
    model: Model,
    sae: "SAE[Any]",
    texts: Sequence[Example],
    ahead: Sequence[Sequence[tuple[int, bool]]],
    *,
    counted: Callable[[], Sequence[float]],
    candidates: int = 6,
    strengths: Sequence[float] = STRENGTHS,
    progress: bool = False,
) -> Chosen:
    """Find the latent that raises a behaviour the most when it is raised at every token.

    The candidates are the latents whose activation best distinguishes places before the behaviour from other places, by
    the difference of the means over the sum of the standard deviations.

    Args:
        texts: texts in which the behaviour occurs.
        ahead: for each text the places before its sentences (0-based tokens, whose state predicts the first token of
            the sentence), and whether the sentence shows the behaviour; from :func:`places_before`.
        counted: rolls the model out in its current state and counts the behaviour in each rollout. It uses the same
            problems in each call, and none on which results are reported.
        candidates: number of latents to try.
        strengths: values to try, in multiples of the latent's mean activation before the behaviour.
        progress: show a bar.

    Raises:
        ProbeError: if no sentence shows the behaviour, or all do, or no latent raises the count.
    """
    before, elsewhere = _ahead(model, sae, texts, ahead)
    if not before.n or not elsewhere.n:
        raise ProbeError(
            f"{before.n} of {before.n + elsewhere.n} sentences show the behaviour: give texts in which only some do"
        )
    apart = before.mean - elsewhere.mean
    spread = before.std + elsewhere.std + 1e-3 * max(before.highest, elsewhere.highest, 1e-6)
    some = (apart / spread).argsort(descending=True)[:candidates].tolist()
    tried = [{"latent": -1.0, "value": 0.0, "count": _mean(counted())}]
    cells = [(latent, strength) for latent in some for strength in strengths]
    for latent, strength in progress_bar(cells, desc="latents", unit="trial", show=progress):
        value = strength * float(before.active[latent] / before.times[latent].clamp(min=1))
        if value > 0:
            with inserted(model, Boost(sae, (latent,), value)):
                tried.append({"latent": float(latent), "value": value, "count": _mean(counted())})
    best = max(tried, key=lambda each: each["count"])
    if best["latent"] < 0:
        raise ProbeError(
            f"none of {len(some)} latents raises the behaviour above {best['count']:.2f} a rollout: name the latents "
            "yourself, or try another SAE or site"
        )
    return Chosen(int(best["latent"]), best["value"], tried)


class _Sums:
    """Sums over places of the activations of each latent; the activations themselves are not kept."""

    def __init__(self, latents: int) -> None:
        self.n, self.highest = 0, 0.0
        self.total, self.squares, self.active, self.times = torch.zeros(4, latents, dtype=torch.float64)

    def add(self, acts: Float[Tensor, "places latents"]) -> None:
        if not len(acts):
            return
        self.n += len(acts)
        self.highest = max(self.highest, float(acts.max()))
        acts = acts.cpu().double()
        self.total += acts.sum(0)
        self.squares += acts.square().sum(0)
        self.active += acts.clamp(min=0).sum(0)
        self.times += (acts > 0).sum(0)

    @property
    def mean(self) -> Float[Tensor, " latents"]:
        return self.total / self.n

    @property
    def std(self) -> Float[Tensor, " latents"]:
        return ((self.squares - self.n * self.mean.square()).clamp(min=0) / (self.n - 1)).sqrt()


@torch.no_grad()
def _ahead(
    model: Model, sae: "SAE[Any]", texts: Sequence[Example], ahead: Sequence[Sequence[tuple[int, bool]]]
) -> tuple[_Sums, _Sums]:
    """Activations at the places before sentences that show the behaviour, and before the others."""
    site, sums = check_sae(sae, model), {shown: _Sums(int(sae.cfg.d_sae)) for shown in (True, False)}
    for text, places in zip(texts, ahead, strict=True):
        if not places:
            continue
        batch = pack(model, [text], len(text.ids))
        with capture(model, site) as states:  # nothing above the site is run
            batch.run(model)
        for shown, of in sums.items():
            at = [place for place, shows in places if bool(shows) is shown]
            of.add(sae.encode(states[site][0, at].to(sae.dtype)).float())
    return sums[True], sums[False]


def _mean(counts: Sequence[float]) -> float:
    return sum(counts) / len(counts)
