"""The results of comparing two models: one sentence for each part."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from probe.diff.difference import ActivationDifference
from probe.diff.directions import DirectionTransfer
from probe.diff.heads import HeadShift, head_names
from probe.diff.knowledge import KnowledgeMaps
from probe.diff.latents import LatentDifference
from probe.diff.massive import MassiveActivations
from probe.diff.names import PARTS
from probe.diff.neurons import NeuronOverlap
from probe.diff.shared import SELDOM, SharedLatents
from probe.diff.steered import SteeredTexts
from probe.diff.tokens import TokenShift
from probe.html import html_table
from probe.statistics import LEVEL, write_p

_ANSWERS = {True: "differs", False: "same", None: "unknown"}
"""What is shown for each value of :attr:`Finding.differs`."""

_Found = tuple[str, bool | None]
_NOTHING: _Found = ("the models' values are not finite, or there are none", None)


@dataclass(frozen=True)
class Finding:
    """The result of one part in a sentence.

    Attributes:
        part: key of :data:`PARTS`.
        said: the result in words and numbers.
        differs: whether the two models differ in it, beyond chance where there is a test; None if there was nothing to
            compare, or too little to tell.
    """

    part: str
    said: str
    differs: bool | None


@dataclass(frozen=True)
class PairDiff:
    """What training changed. The result of a part that was not requested, or does not apply, is None.

    Attributes:
        pair: name of the pair.
        behaviour: name of the behaviour that heads and a direction were compared for.
        chosen: how that behaviour was chosen; None if it was named.
        tokens: divergence and entropy over all traces, and of the first traces token by token.
        heads: importance of heads before and after.
        direction: transfer of the behaviour's direction.
        truth: transfer of the direction of true equations.
        knowledge: causal tracing maps.
        neurons: overlap of entropy neurons.
        latents: an SAE over both models.
        difference: the mean difference of states, and what it says.
        steering: what the base writes with the mean difference added.
        dictionary: the latents of a given SAE in both models.
        massive: massive activations of the base and of the thinking model.
        missing: parts that do not apply to these models or texts, each with the reason.
    """

    pair: str
    behaviour: str | None = None
    chosen: str | None = None
    tokens: TokenShift | None = None
    heads: HeadShift | None = None
    direction: DirectionTransfer | None = None
    truth: DirectionTransfer | None = None
    knowledge: KnowledgeMaps | None = None
    neurons: NeuronOverlap | None = None
    latents: SharedLatents | None = None
    difference: ActivationDifference | None = None
    steering: SteeredTexts | None = None
    dictionary: LatentDifference | None = None
    massive: tuple[MassiveActivations, MassiveActivations] | None = None
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def findings(self) -> list[Finding]:
        """One finding for each part that has a result."""
        found = []
        for part in PARTS:
            result = getattr(self, part)
            if result is not None:
                said, differs = _FINDINGS[part](result)
                found.append(Finding(part, f"for {self.behaviour}: {said}" if part == "heads" else said, differs))
        return found

    def to_dict(self) -> dict[str, Any]:
        """The content of ``results.json``."""
        results: dict[str, Any] = {
            "pair": self.pair,
            "behaviour": self.behaviour,
            "chosen": self.chosen,
            "findings": [asdict(each) for each in self.findings],
            "missing": self.missing,
        }
        if self.heads is not None:
            results["heads"] = {
                "before": self.heads.before.mean(0).tolist(),
                "after": self.heads.after.mean(0).tolist(),
                "p": self.heads.p.tolist(),
                **{name: getattr(self.heads, name) for name in ("grown", "shrunk", "emergent", "lost")},
            }
        for name in ("direction", "truth"):
            if (transfer := getattr(self, name)) is not None:
                results[name] = asdict(transfer)
        if self.knowledge is not None:
            maps = self.knowledge
            results["knowledge"] = {name: getattr(maps, name) for name in ("correlation", "within", "largest")} | {
                name: getattr(maps, name).values.tolist() for name in ("base", "thinking", "into_thinking", "into_base")
            }
        if self.latents is not None:
            latents = self.latents
            results["latents"] = {name: getattr(latents, name).tolist() for name in ("ratio", "back", "active")} | {
                name: getattr(latents, name) for name in ("thinking_only", "base_only", "variance_explained")
            }
        for name in ("difference", "steering", "dictionary"):
            if (made := getattr(self, name)) is not None:
                results[name] = made.to_dict()
        return _finite(results)

    def __repr__(self) -> str:
        findings = self.findings
        known = [each.differs for each in findings if each.differs is not None]
        return f"PairDiff({self.pair}: {sum(known)} of {len(known)} compared parts differ)"

    def _repr_html_(self) -> str:
        rows = [(each.part, _ANSWERS[each.differs], each.said) for each in self.findings]
        rows += [(part, "–", why) for part, why in self.missing.items()]
        return html_table((), rows, f"what training changed in {self.pair}")


def _tokens(found: TokenShift) -> _Found:
    if not found.tokens:
        return f"no token in {found.n_traces} traces to compare", None
    if not np.isfinite([found.kl, found.base_entropy, found.thinking_entropy]).all():
        return _NOTHING
    said = (
        f"KL {found.kl:.3f} nats per token, the same likeliest token at {found.agree:.0%} of {found.tokens:,}; "
        f"entropy {found.base_entropy:.2f} in the base, {found.thinking_entropy:.2f} in the thinking model"
    )
    return said, found.largest_kl > 1e-5


def _heads(heads: HeadShift) -> _Found:
    parts, n = len(heads.before), heads.p.numel()
    if not heads.p.isfinite().all():
        return _NOTHING
    if heads.least_p >= 1 - LEVEL:
        return f"{parts} parts of the pairs of texts are too few to test {n} heads", None
    kinds = ("grown", "shrunk", "emergent", "lost")
    said = "; ".join(f"{kind} {head_names(getattr(heads, kind))}" for kind in kinds)
    return f"{said} (of {n} heads)", bool(heads.grown or heads.shrunk)


def _knowledge(maps: KnowledgeMaps) -> _Found:
    if not np.isfinite([maps.correlation, maps.within, maps.largest]).all():
        return "a map is the same at every block and token, so maps cannot be correlated", None
    said = (
        f"maps correlate {maps.correlation:.2f} (two halves of the texts in the base: {maps.within:.2f}), "
        f"largest difference {maps.largest:.2f}; states of the base restore up to "
        f"{float(maps.into_thinking.values.max()):.2f} in the thinking model, states of the thinking model up to "
        f"{float(maps.into_base.values.max()):.2f} in the base"
    )
    return said, maps.correlation < min(maps.within, 0.999)


def _transfer(found: DirectionTransfer) -> _Found:
    a, s = found.accuracy, found.steered
    p = max(found.p.values())
    said = (
        f"at resid_post.{found.layer}: base probe {a['base']['base']:.2f} on the base and "
        f"{a['base']['thinking']:.2f} on the thinking model, thinking probe {a['thinking']['base']:.2f} and "
        f"{a['thinking']['thinking']:.2f} ({found.texts[1]} texts, {write_p(p)}), cosine {found.cosine:.2f}"
    )
    if s["base"]["thinking"] is not None and s["thinking"]["base"] is not None:
        said += (
            f"; steering with the base's in the thinking model {s['base']['thinking']:.2f}, "
            f"with the thinking model's in the base {s['thinking']['base']:.2f}"
        )
    blind = [name for name, value in found.p.items() if value >= 1 - LEVEL]
    if len(blind) == len(found.p):
        return (
            f"{said}; neither model's own probe is better than with shuffled labels, so there is none to transfer",
            None,
        )
    # A probe transfers unless it loses more than two standard errors of a difference of two shares.
    least = min(a["base"]["thinking"] - a["thinking"]["thinking"], a["thinking"]["base"] - a["base"]["base"])
    return said, bool(least < -2 * (0.5 / found.texts[1]) ** 0.5)


def _neurons(found: NeuronOverlap) -> _Found:
    said = (
        f"{len(found.shared)} of {len(found.base.neurons)} entropy neurons are the same "
        f"(IoU {found.iou:.2f}, {write_p(found.p)})"
    )
    if found.iou < 1 and not found.decides:
        return f"{said}; the last MLP has too few neurons to tell", None
    return said, found.iou < 1 and found.p > 1 - LEVEL


def _latents(found: SharedLatents) -> _Found:
    judged = int((found.active >= SELDOM).any(0).sum())
    if not judged or not np.isfinite(found.variance_explained):
        return f"no latent is active at {SELDOM} tokens, so none can be compared", None
    said = (
        f"{len(found.thinking_only)} latents only in the thinking model, {len(found.base_only)} only in the base, "
        f"of {judged} active at {SELDOM} tokens or more ({found.variance_explained:.0%} of the variance explained)"
    )
    return said, bool(found.thinking_only or found.base_only)


def _difference(found: ActivationDifference) -> _Found:
    at = f"at resid_post.{found.layer}"
    place = found.clearest
    if place is None:
        return f"{at} both models have the same mean states", False
    best = next(each for each in found.readings if each.place == place)
    said = (
        f"{at} over {place}, {best.size:.0%} of a state's norm: it raises {' '.join(map(repr, best.top[:5]))} "
        f"(correlation {best.agrees:.2f} with what training raised along other traces, {write_p(best.least)} against "
        f"the harder of two nulls; readable at {len(found.readable)} of {len(found.readings)} places)"
    )
    lowest = min(each.floor for each in found.readings if each.floor is not None)
    if lowest >= found.level:
        return f"{said}; {best.texts} texts have too few halves: p is {lowest:.2g} or more", None
    return said, bool(found.readable)


def _steering(found: SteeredTexts) -> _Found:
    measure = found.effects[-1].measure
    best = next(each for each in reversed(found.effects) if each.measure == measure)
    what = "sentences that show it" if measure == "behaviour" else "tokens that the thinking model favours"
    low, high = best.more_than_random.low, best.more_than_random.high
    said = (
        f"the base with {best.strength:g} × the difference of {found.place}: {what} "
        f"{best.plain.write('{:.1%}'.format)} → {best.steered.write('{:.1%}'.format)}, "
        f"with random vectors {best.random.write('{:.1%}'.format)}"
    )
    return said, None if low is None or high is None else low > 0 or high < 0


def _dictionary(found: LatentDifference) -> _Found:
    base, thinking = (each.write("{:.0%}".format) for each in found.explained)
    said = (
        f"of {found.dictionary.size} latents of {found.dictionary.name}, {len(found.changed)} differ at a false "
        f"discovery rate of 5 %, {len(found.doubled)} of them twofold, {len(found.thinking_only)} only in the thinking "
        f"model and {len(found.base_only)} only in the base (variance explained: {base} in the base, {thinking} in the "
        "thinking model)"
    )
    return said, bool(found.changed)


def _massive(found: tuple[MassiveActivations, MassiveActivations]) -> _Found:
    base, thinking = found
    if not all(bool(each.ratio.isfinite().all()) and bool(each.ratio.max() > 0) for each in found):
        return _NOTHING
    said = (
        f"largest over median {float(base.ratio.max()):.0f} in the base, {float(thinking.ratio.max()):.0f} in the "
        f"thinking model; massive: {'yes' if base.found else 'no'}, {'yes' if thinking.found else 'no'}"
    )
    return said, base.dims != thinking.dims


def _finite(value: Any) -> Any:
    """The same value with None for every number that is not finite, which JSON cannot store."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_finite, value))
    return None if isinstance(value, float) and not np.isfinite(value) else value


_FINDINGS: Mapping[str, Callable[..., _Found]] = {
    "tokens": _tokens,
    "heads": _heads,
    "direction": _transfer,
    "truth": _transfer,
    "knowledge": _knowledge,
    "neurons": _neurons,
    "latents": _latents,
    "difference": _difference,
    "steering": _steering,
    "dictionary": _dictionary,
    "massive": _massive,
}
