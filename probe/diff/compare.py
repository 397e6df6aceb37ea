"""Everything that training may have changed, looked at in turn, each beside what chance would give."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

from probe._config import nearest
from probe._errors import ProbeError
from probe.circuits import Pairs, behaviour_pairs, operand_pairs, statement_pairs
from probe.diff.directions import DirectionTransfer, direction_transfer
from probe.diff.heads import HeadShift, head_shift
from probe.diff.knowledge import KnowledgeMaps, knowledge_maps
from probe.diff.massive import MassiveActivations, massive_activations
from probe.diff.neurons import NeuronOverlap, entropy_overlap
from probe.diff.shared import SharedLatents, shared_latents
from probe.diff.tokens import TokenTrace, token_traces
from probe.models import Pair
from probe.problems import Problem, ProblemSet, load_problems
from probe.traces import Trace, Traces, generate_traces

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

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{each.part}</td><td>{'differs' if each.differs else 'same'}</td><td>{escape(each.said)}</td></tr>"
            for each in self.findings
        )
        rows += "".join(
            f"<tr><td>{part}</td><td>–</td><td>{escape(why)}</td></tr>" for part, why in self.missing.items()
        )
        return f"<p>what training changed in {escape(self.pair)}</p><table>{rows}</table>"


def compare(
    pair: Pair,
    *,
    problems: ProblemSet | None = None,
    behaviour: str | None = None,
    parts: Sequence[str] | None = None,
    n: int = 80,
    pairs: int = 48,
    layer: int | None = None,
    max_new_tokens: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> PairDiff:
    """Compare the two models of a pair on texts of the thinking model.

    Args:
        problems: whose train split is written on; the pair's own unless given.
        behaviour: a type of sentence that heads are compared for; the one whose share rose most unless given.
        parts: of :data:`PARTS`; all unless given.
        n: problems.
        pairs: of texts, for heads and tracing, at most.
        layer: of the SAE over both models; the middle unless given.
        max_new_tokens: of a trace; the pair's own limit unless given.
        seed: of everything that is drawn.
        progress: show bars.

    Returns:
        What could be looked at; what could not is named with its reason.

    Raises:
        ProbeError: for an unknown part or behaviour, or a pair without problems.
    """
    asked = tuple(PARTS if parts is None else parts)
    for part in asked:
        if part not in PARTS:
            raise ProbeError(f"there is no part {part!r}; {nearest(part, PARTS)} (of: {', '.join(PARTS)})")
    if problems is None:
        if pair.config.problems is None:
            raise ProbeError(f"the pair {pair.name} names no problems: give problems=load_problems(...)")
        problems = load_problems(pair.config.problems)
    some = problems.take("train", n)
    limit = max_new_tokens or pair.config.max_new_tokens
    traces = generate_traces(pair.thinking, problems, some, max_new_tokens=limit, progress=progress)
    if behaviour is not None and problems.sentence_type is not None:
        there = {
            problems.sentence_type(trace.sentence_text(each)) or "none" for trace in traces for each in trace.sentences
        }
        if behaviour not in there:
            raise ProbeError(f"no sentence is of the type {behaviour!r}; {nearest(behaviour, there)}")
    looking = _Looking(pair, problems, some, traces, behaviour, pairs, layer, limit, seed, progress)
    found, missing = {}, {}
    for part in asked:
        try:
            found[part] = getattr(looking, part)()
        except ProbeError as error:
            missing[part] = str(error)
    return PairDiff(pair.name, looking.behaviour, **found, missing=missing)


@dataclass
class _Looking:
    """What all parts share: the texts and their pairs."""

    pair: Pair
    problem_set: ProblemSet
    problems: tuple[Problem, ...]
    traces: Traces
    behaviour: str | None
    n_pairs: int
    layer: int | None
    limit: int
    seed: int
    progress: bool

    def tokens(self) -> list[TokenTrace]:
        return token_traces(self.pair, self.problems, self.traces.traces)

    def heads(self) -> HeadShift:
        return head_shift(self.pair.base, self.pair.thinking, self._behaviour_pairs(slice(None), self.n_pairs))

    def direction(self) -> DirectionTransfer:
        fitted, held = (self._behaviour_pairs(half, self.n_pairs) for half in self._halves())
        return direction_transfer(self.pair, fitted, held, seed=self.seed)

    def truth(self) -> DirectionTransfer:
        fitted, held = (self._equation_pairs(statement_pairs, half, self.n_pairs) for half in self._halves())
        return direction_transfer(self.pair, fitted, held, seed=self.seed)

    def knowledge(self) -> KnowledgeMaps:
        found = self._equation_pairs(operand_pairs, slice(None), max(4, self.n_pairs // 3))
        return knowledge_maps(self.pair, found, progress=self.progress)

    def neurons(self) -> NeuronOverlap:
        return entropy_overlap(self.pair)

    def latents(self) -> SharedLatents:
        layer = (self.pair.base.n_layers - 1) // 2 if self.layer is None else self.layer
        return shared_latents(self.pair, self._texts(), layer=layer, seed=self.seed, progress=self.progress)

    def massive(self) -> tuple[MassiveActivations, MassiveActivations]:
        texts = self._texts()[:10]
        return massive_activations(self.pair.base, texts), massive_activations(self.pair.thinking, texts)

    def _halves(self) -> tuple[slice, slice]:
        """Problems to fit on and others to test on."""
        half = len(self.problems) // 2
        return slice(0, half), slice(half, None)

    def _equation_pairs(self, build: Callable[..., Pairs], some: slice, n: int) -> Pairs:
        return build(self.pair.thinking, self.traces.traces[some], self.problems[some], n=n, seed=self.seed)

    def _behaviour_pairs(self, some: slice, n: int) -> Pairs:
        kind = self.problem_set.sentence_type
        if kind is None:
            raise ProbeError(
                f"sentences of {self.problem_set.name} have no types: give pairs of your own to probe.diff.head_shift"
            )
        self.behaviour = self.behaviour or self._risen(kind)
        traces, problems = self.traces.traces[some], self.problems[some]
        return behaviour_pairs(
            self.pair.thinking,
            traces,
            problems,
            lambda text: kind(text) == self.behaviour,
            n=n,
            group=1,
            seed=self.seed,
        )

    def _texts(self) -> list[list[int]]:
        prompts = (self.pair.thinking.prompt_ids(problem.question) for problem in self.problems)
        return [[*prompt, *trace.tokens] for prompt, trace in zip(prompts, self.traces, strict=True)]

    def _risen(self, kind: Callable[[str], str | None]) -> str:
        """The type of sentence whose share rose most from base to thinking; of equal ones the first by name."""
        base = generate_traces(self.pair.base, self.problem_set, self.problems, max_new_tokens=self.limit)
        shares = [_shares(traces, kind) for traces in (base, self.traces)]
        return max(sorted(shares[1]), key=lambda name: shares[1][name] - shares[0].get(name, 0.0))


def _shares(traces: Sequence[Trace], kind: Callable[[str], str | None]) -> dict[str, float]:
    counts = Counter(kind(trace.sentence_text(each)) or "none" for trace in traces for each in trace.sentences)
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()}


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
