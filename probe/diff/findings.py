"""What a comparison found, each part in a sentence and beside what chance would give."""

from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

import numpy as np

from probe.diff.directions import DirectionTransfer
from probe.diff.heads import HeadShift
from probe.diff.knowledge import KnowledgeMaps
from probe.diff.massive import MassiveActivations
from probe.diff.neurons import NeuronOverlap
from probe.diff.shared import SharedLatents
from probe.diff.tokens import TokenTrace

#: What is looked at.
PARTS = {
    "tokens": "divergence and entropy, token by token",
    "heads": "which heads a behaviour hangs on",
    "direction": "a behaviour's direction, by probes and by steering",
    "truth": "the direction of true equations, the same way",
    "knowledge": "where an operand is held",
    "neurons": "entropy neurons",
    "latents": "an SAE over both models",
    "massive": "massive activations",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        part: of :data:`PARTS`.
        said: what was found, in words and figures.
        differs: whether the two models differ in it beyond chance.
    """

    part: str
    said: str
    differs: bool


@dataclass(frozen=True)
class PairDiff:
    """What training changed.

    Attributes:
        behaviour: that heads and a direction were compared for.
        missing: parts that could not be looked at, and why.
    """

    pair: str
    behaviour: str | None = None
    tokens: list[TokenTrace] | None = None
    heads: HeadShift | None = None
    direction: DirectionTransfer | None = None
    truth: DirectionTransfer | None = None
    knowledge: KnowledgeMaps | None = None
    neurons: NeuronOverlap | None = None
    latents: SharedLatents | None = None
    massive: tuple[MassiveActivations, MassiveActivations] | None = None
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def findings(self) -> list[Finding]:
        """One of each part that was looked at."""
        return [_FINDINGS[part](self) for part in PARTS if getattr(self, part) is not None]

    def to_dict(self) -> dict[str, Any]:
        """For ``results.json``."""
        told: dict[str, Any] = {
            "pair": self.pair,
            "behaviour": self.behaviour,
            "findings": [asdict(each) for each in self.findings],
            "missing": self.missing,
        }
        if self.heads is not None:
            told["heads"] = {
                "before": self.heads.before.mean(0).tolist(),
                "after": self.heads.after.mean(0).tolist(),
                "p": self.heads.p.tolist(),
                **{name: getattr(self.heads, name) for name in ("grown", "shrunk", "emergent", "lost")},
            }
        for name in ("direction", "truth"):
            if (transfer := getattr(self, name)) is not None:
                told[name] = asdict(transfer)
        if self.knowledge is not None:
            maps = self.knowledge
            told["knowledge"] = {name: getattr(maps, name) for name in ("correlation", "within", "largest")} | {
                name: getattr(maps, name).values.tolist() for name in ("base", "thinking", "into_thinking", "into_base")
            }
        if self.latents is not None:
            latents = self.latents
            told["latents"] = {name: getattr(latents, name).tolist() for name in ("ratio", "back", "active")} | {
                name: getattr(latents, name) for name in ("thinking_only", "base_only", "variance_explained")
            }
        return told

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{each.part}</td><td>{'differs' if each.differs else 'same'}</td><td>{escape(each.said)}</td></tr>"
            for each in self.findings
        )
        rows += "".join(
            f"<tr><td>{part}</td><td>–</td><td>{escape(why)}</td></tr>" for part, why in self.missing.items()
        )
        return f"<p>what training changed in {escape(self.pair)}</p><table>{rows}</table>"


def _tokens_said(diff: PairDiff) -> Finding:
    assert diff.tokens is not None
    kl = np.concatenate([each.kl.numpy() for each in diff.tokens])
    agree = np.concatenate([each.agree.numpy() for each in diff.tokens])
    entropy = [
        np.concatenate([getattr(each, f"{side}_entropy").numpy() for each in diff.tokens]).mean()
        for side in ("base", "thinking")
    ]
    said = (
        f"KL {kl.mean():.3f} nats a token, the same likeliest token at {agree.mean():.0%}; "
        f"entropy {entropy[0]:.2f} in the base, {entropy[1]:.2f} in the thinking model"
    )
    return Finding("tokens", said, bool(kl.max() > 1e-5))


def _heads_said(diff: PairDiff) -> Finding:
    heads = diff.heads
    assert heads is not None

    def named(some: list[tuple[int, int]]) -> str:
        return ", ".join(f"a{layer}.h{head}" for layer, head in some) or "none"

    said = (
        f"for {diff.behaviour}: grown {named(heads.grown)}; shrunk {named(heads.shrunk)}; "
        f"emergent {named(heads.emergent)}; lost {named(heads.lost)}"
    )
    return Finding("heads", said, bool(heads.grown or heads.shrunk))


def _knowledge_said(diff: PairDiff) -> Finding:
    maps = diff.knowledge
    assert maps is not None
    said = (
        f"maps correlate {maps.correlation:.2f} (two halves of the texts in the base: {maps.within:.2f}), "
        f"largest difference {maps.largest:.2f}; base states bring back up to "
        f"{float(maps.into_thinking.values.max()):.2f} in the thinking model, its own up to "
        f"{float(maps.into_base.values.max()):.2f} in the base"
    )
    return Finding("knowledge", said, maps.correlation < min(maps.within, 0.999))


def _direction_said(diff: PairDiff) -> Finding:
    return _transfer_said("direction", diff.direction)


def _truth_said(diff: PairDiff) -> Finding:
    return _transfer_said("truth", diff.truth)


def _transfer_said(part: str, found: DirectionTransfer | None) -> Finding:
    assert found is not None
    a, s = found.accuracy, found.steered
    said = (
        f"at resid_post.{found.layer}: base probe {a['base']['base']:.2f} on the base and "
        f"{a['base']['thinking']:.2f} on the thinking model, thinking probe {a['thinking']['base']:.2f} and "
        f"{a['thinking']['thinking']:.2f} (p {max(found.p.values()):.3f}), cosine {found.cosine:.2f}"
    )
    if s["base"]["thinking"] is not None and s["thinking"]["base"] is not None:
        said += (
            f"; steered: base's in thinking {s['base']['thinking']:.2f}, thinking's in base {s['thinking']['base']:.2f}"
        )
    # Either probe loses more than two standard errors of a difference of two shares where it is carried over.
    least = min(a["base"]["thinking"] - a["thinking"]["thinking"], a["thinking"]["base"] - a["base"]["base"])
    return Finding(part, said, bool(least < -2 * (0.5 / found.texts[1]) ** 0.5))


def _neurons_said(diff: PairDiff) -> Finding:
    found = diff.neurons
    assert found is not None
    said = (
        f"{len(found.shared)} of {len(found.base.neurons)} entropy neurons are the same "
        f"(IoU {found.iou:.2f}, p {found.p:.3f})"
    )
    return Finding("neurons", said, found.p > 0.05)


def _latents_said(diff: PairDiff) -> Finding:
    found = diff.latents
    assert found is not None
    said = (
        f"{len(found.thinking_only)} latents of the thinking model alone, {len(found.base_only)} of the base alone, "
        f"of {int((found.active.sum(0) > 0).sum())} in use ({found.variance_explained:.0%} of the variance explained)"
    )
    return Finding("latents", said, bool(found.thinking_only or found.base_only))


def _massive_said(diff: PairDiff) -> Finding:
    assert diff.massive is not None
    base, thinking = diff.massive
    said = (
        f"largest over median {float(base.ratio.max()):.0f} in the base, {float(thinking.ratio.max()):.0f} in the "
        f"thinking model; massive: {'yes' if base.found else 'no'}, {'yes' if thinking.found else 'no'}"
    )
    return Finding("massive", said, base.dims != thinking.dims)


_FINDINGS = {
    "tokens": _tokens_said,
    "heads": _heads_said,
    "direction": _direction_said,
    "truth": _truth_said,
    "knowledge": _knowledge_said,
    "neurons": _neurons_said,
    "latents": _latents_said,
    "massive": _massive_said,
}
