"""Everything that training may have changed, looked at in turn, each beside what chance would give."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from probe.activations import documents_of
from probe.circuits import Pairs, behaviour_pairs, operand_pairs, shows_behaviour, statement_pairs
from probe.config import nearest
from probe.diff.directions import DirectionTransfer, direction_transfer
from probe.diff.findings import PARTS, PairDiff
from probe.diff.heads import HeadShift, head_shift
from probe.diff.knowledge import KnowledgeMaps, knowledge_maps
from probe.diff.massive import MassiveActivations, massive_activations
from probe.diff.neurons import NeuronOverlap, entropy_overlap
from probe.diff.shared import SharedLatents, shared_latents
from probe.diff.tokens import TokenTrace, token_trace
from probe.errors import ProbeError
from probe.models import Pair
from probe.problems import Problem, ProblemSet, load_problems
from probe.traces import Trace, Traces, generate_traces


def diff_models(
    pair: Pair,
    *,
    problems: ProblemSet | None = None,
    traces: Traces | None = None,
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
        traces: the thinking model's on the first ``n`` of them, if they are there already.
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
    asked = check_parts(PARTS if parts is None else parts)
    if problems is None:
        if pair.config.problems is None:
            raise ProbeError(f"the pair {pair.name} names no problems: give problems=load_problems(...)")
        problems = load_problems(pair.config.problems)
    some = problems.take("train", n)
    limit = max_new_tokens or pair.config.max_new_tokens
    if traces is None:
        traces = generate_traces(pair.thinking, problems, some, max_new_tokens=limit, progress=progress)
    if behaviour is not None:
        shows_behaviour(problems, behaviour, traces)
    looking = _Looking(pair, problems, some, traces, behaviour, pairs, layer, limit, seed, progress)
    found, missing = {}, {}
    for part in asked:
        try:
            found[part] = getattr(looking, part)()
        except ProbeError as error:
            missing[part] = str(error)
    return PairDiff(pair.name, looking.behaviour, **found, missing=missing)


def check_parts(parts: Iterable[str]) -> tuple[str, ...]:
    """The parts as they were named.

    Raises:
        ProbeError: for one that is not of :data:`PARTS`.
    """
    for part in (named := tuple(parts)):
        if part not in PARTS:
            raise ProbeError(f"there is no part {part!r}; {nearest(part, PARTS)} (of: {', '.join(PARTS)})")
    return named


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
        told = zip(self.problems, self.traces, strict=True)
        return [token_trace(self.pair, problem, trace) for problem, trace in told]

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
        self.behaviour = self.behaviour or self._risen()
        shows = shows_behaviour(self.problem_set, self.behaviour)
        traces, problems = self.traces.traces[some], self.problems[some]
        return behaviour_pairs(
            self.pair.thinking,
            traces,
            problems,
            shows,
            n=n,
            group=1,
            seed=self.seed,
        )

    def _texts(self) -> list[tuple[int, ...]]:
        return [document.ids for document in documents_of(self.pair.thinking, self.traces)]

    def _risen(self) -> str:
        """The type of sentence whose share rose most from base to thinking; of equal ones the first by name."""
        kind = self.problem_set.sentence_type
        if kind is None:
            raise ProbeError(
                f"sentences of {self.problem_set.name} have no types: give pairs of your own to probe.diff.head_shift"
            )
        base = generate_traces(self.pair.base, self.problem_set, self.problems, max_new_tokens=self.limit)
        shares = [_shares(traces, kind) for traces in (base, self.traces)]
        return max(sorted(shares[1]), key=lambda name: shares[1][name] - shares[0].get(name, 0.0))


def _shares(traces: Sequence[Trace], kind: Callable[[str], str | None]) -> dict[str, float]:
    counts = Counter(kind(trace.sentence_text(each)) or "none" for trace in traces for each in trace.sentences)
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()}
