"""Comparing the two models of a pair: every part of the comparison, each beside its null."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from probe.activations import documents_of
from probe.circuits import Pairs, behaviour_pairs, operand_pairs, statement_pairs
from probe.diff.directions import DirectionTransfer, direction_transfer
from probe.diff.findings import PairDiff
from probe.diff.heads import head_shift
from probe.diff.knowledge import knowledge_maps
from probe.diff.massive import massive_activations
from probe.diff.names import PARTS, check_parts
from probe.diff.neurons import entropy_overlap
from probe.diff.shared import shared_latents
from probe.diff.tokens import token_trace
from probe.errors import NotApplicable, ProbeError
from probe.models import Pair
from probe.problems import Problem, ProblemSet, load_problems
from probe.taxonomy import Behaviour, find_behaviour
from probe.traces import Trace, Traces, generate_traces

_MASSIVE_TEXTS = 10
"""Number of texts that are searched for massive activations."""


def diff_models(
    pair: Pair,
    *,
    problem_set: ProblemSet | None = None,
    traces: Traces | None = None,
    behaviour: Behaviour | str | None = None,
    parts: Sequence[str] | None = None,
    n_problems: int = 80,
    n_pairs: int = 48,
    layer: int | None = None,
    max_new_tokens: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> PairDiff:
    """Compare the two models of a pair on texts of the thinking model.

    Args:
        problem_set: its train split gives the problems; None for the pair's own problem set.
        traces: traces of the thinking model on the first ``n_problems`` of them; None to generate them.
        behaviour: the behaviour that heads and directions are compared for, or its name as
            :func:`~probe.find_behaviour` reads it; None for the sentence type whose share rose most in training.
        parts: keys of :data:`PARTS`; None for all.
        n_pairs: the largest number of pairs of texts, for heads, directions and tracing.
        layer: layer of the SAE over both models, counted from 0; None for the middle layer.
        max_new_tokens: the largest number of tokens of a trace; None for the pair's own limit.
        seed: seeds everything that is random.
        progress: show progress bars.

    Returns:
        The result of each part. A part that does not apply to these models or texts is named with the reason.

    Raises:
        ProbeError: for an unknown part or behaviour, one that no trace shows, a layer that a model does not have, or a
            pair without problems.
    """
    asked = check_parts(PARTS if parts is None else parts)
    if problem_set is None:
        if pair.config.problems is None:
            raise ProbeError(f"the pair {pair.name} names no problems: give problem_set=load_problems(...)")
        problem_set = load_problems(pair.config.problems, grader=pair.config.grader)
    if isinstance(behaviour, str):
        behaviour = find_behaviour(behaviour, problem_set=problem_set)
    if layer is not None and "latents" in asked and not 0 <= layer < min(pair.base.n_layers, pair.thinking.n_layers):
        raise ProbeError(f"layer is {layer}; the models of {pair.name} do not both have it, counted from 0")
    problems = problem_set.take("train", n_problems, fewer=True)
    limit = max_new_tokens or pair.config.max_new_tokens
    if traces is None:
        traces = generate_traces(pair.thinking, problem_set, problems, max_new_tokens=limit, progress=progress)
    if behaviour is not None:
        behaviour.marks(traces, required=True)
    texts = _Texts(pair, problem_set, problems, traces, behaviour, n_pairs, layer, limit, seed, progress)
    found, missing = {}, {}
    for part in asked:
        try:
            found[part] = _PARTS[part](texts)
        except NotApplicable as error:
            missing[part] = str(error)
    used = behaviour or texts.known
    return PairDiff(pair.name, used and used.name, **found, missing=missing)


@dataclass
class _Texts:
    """The models, the traces and the pairs of texts that the parts share."""

    pair: Pair
    problem_set: ProblemSet
    problems: tuple[Problem, ...]
    traces: Traces
    asked: Behaviour | None
    n_pairs: int
    layer: int | None
    max_new_tokens: int
    seed: int
    progress: bool

    @cached_property
    def behaviour(self) -> Behaviour:
        return self.asked or self._risen()

    @property
    def known(self) -> Behaviour | None:
        """The behaviour, if a part has needed it."""
        return self.__dict__.get("behaviour")

    @cached_property
    def documents(self) -> list[tuple[int, ...]]:
        return [document.ids for document in documents_of(self.pair.thinking, self.traces)]

    @property
    def halves(self) -> tuple[slice, slice]:
        """Problems to fit on, and others to test on."""
        half = len(self.problems) // 2
        return slice(0, half), slice(half, None)

    def equations(self, build: Callable[..., Pairs], some: slice, n_pairs: int) -> Pairs:
        return build(self.pair.thinking, self.traces[some], self.problems[some], n_pairs=n_pairs, seed=self.seed)

    def behaviours(self, some: slice) -> Pairs:
        return behaviour_pairs(
            self.pair.thinking, self.traces[some], self.problems[some], self.behaviour,
            n_pairs=self.n_pairs, seed=self.seed,
        )  # fmt: skip

    def _risen(self) -> Behaviour:
        """The sentence type whose share rose most from base to thinking; of equal ones the first by name."""
        kind = self.problem_set.sentence_type
        if kind is None:
            raise NotApplicable(f"sentences of {self.problem_set.name} have no types: name a behaviour")
        base = generate_traces(self.pair.base, self.problem_set, self.problems, max_new_tokens=self.max_new_tokens)
        shares = [_shares(traces, kind) for traces in (base, self.traces)]
        names = sorted(shares[1].keys() - {"none"})
        if not names:
            raise NotApplicable(f"no sentence of {self.pair.thinking.name} has a type: name a behaviour")
        name = max(names, key=lambda name: shares[1][name] - shares[0].get(name, 0.0))
        return Behaviour.of_type(self.problem_set, name)


def _transfer(texts: _Texts, fitted: Pairs, test: Pairs) -> DirectionTransfer:
    return direction_transfer(texts.pair, fitted, test, seed=texts.seed)


def _knowledge(texts: _Texts) -> Any:
    pairs = texts.equations(operand_pairs, slice(None), max(4, texts.n_pairs // 3))
    return knowledge_maps(texts.pair, pairs, progress=texts.progress)


def _latents(texts: _Texts) -> Any:
    layer = (texts.pair.base.n_layers - 1) // 2 if texts.layer is None else texts.layer
    return shared_latents(texts.pair, texts.documents, layer=layer, seed=texts.seed, progress=texts.progress)


_PARTS: Mapping[str, Callable[[_Texts], Any]] = {
    "tokens": lambda texts: [token_trace(texts.pair, *each) for each in zip(texts.problems, texts.traces, strict=True)],
    "heads": lambda texts: head_shift(texts.pair.base, texts.pair.thinking, texts.behaviours(slice(None))),
    "direction": lambda texts: _transfer(texts, *(texts.behaviours(half) for half in texts.halves)),
    "truth": lambda texts: _transfer(
        texts, *(texts.equations(statement_pairs, half, texts.n_pairs) for half in texts.halves)
    ),
    "knowledge": _knowledge,
    "neurons": lambda texts: entropy_overlap(texts.pair),
    "latents": _latents,
    "massive": lambda texts: tuple(
        massive_activations(model, texts.documents[:_MASSIVE_TEXTS]) for model in (texts.pair.base, texts.pair.thinking)
    ),
}


def _shares(traces: Sequence[Trace], kind: Callable[[str], str | None]) -> dict[str, float]:
    counts = Counter(kind(trace.sentence_text(each)) or "none" for trace in traces for each in trace.sentences)
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()}
