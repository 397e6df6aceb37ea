"""Gates, the positions at which mechanisms are learned: where the two models disagree on the thinking model's text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probe.activations import SentenceActivations
from probe.errors import ProbeError
from probe.hooks import Forced, force, forced_pass, in_rows, n_logits
from probe.models import Pair
from probe.problems import Problem
from probe.taxonomy import Taxonomy
from probe.traces import Trace

_AT_A_TIME = 16_384
"""The number of states that are classified at a time."""


@dataclass(frozen=True)
class GateBatch:
    """A batch of traces after the base model's prompt, with everything that training needs.

    Attributes:
        forced: the batch as the base model reads it.
        gate: whether each token is steered, ``[rows, emitted]``; for the hybrid, whether the models' most likely tokens
            differ there.
        behaviour: the behaviour at each token, ``[rows, emitted]``.
        target: the token that steering should produce, ``[rows, emitted]``; for the hybrid, the thinking model's most
            likely one.
        group: a number for each token, ``[rows, emitted]``. Gates of a row with the same number are steered together,
            and later ones see the shifted states of earlier ones. None follows ``persistent`` of the mechanism.
    """

    forced: Forced
    gate: Bool[Tensor, "rows emitted"]
    behaviour: Int[Tensor, "rows emitted"]
    target: Int[Tensor, "rows emitted"]
    group: Int[Tensor, "rows emitted"] | None = None

    @property
    def places(self) -> tuple[Int[Tensor, " gates"], Int[Tensor, " gates"]]:
        """Row and column of ``forced.ids`` at which each gate is steered: the column that predicts its token."""
        rows, emitted = self.gate.nonzero(as_tuple=True)
        return rows, self.forced.predicts[rows, emitted]

    @property
    def slots(self) -> Int[Tensor, " gates"]:
        """The index of each gate among the gates of its row."""
        return (self.gate.cumsum(1) - 1)[self.gate]

    def behaviours(self, n: int) -> Int[Tensor, " gates"]:
        """The behaviour of each gate for a mechanism with ``n`` vectors; a single vector serves all behaviours."""
        return self.behaviour[self.gate].clamp(max=n - 1)

    def __repr__(self) -> str:
        return f"GateBatch({len(self.gate)} texts, {int(self.gate.sum())} gates)"


def collect_gates(
    pair: Pair,
    taxonomy: Taxonomy,
    traces: Sequence[Trace],
    problems: Sequence[Problem],
    *,
    acts: SentenceActivations | None = None,
    batch_size: int = 16,
) -> Iterator[GateBatch]:
    """Find the gates of some traces: run both models over each trace and compare their most likely tokens.

    Args:
        pair: both models; the base model reads a trace after its own prompt, the thinking model after the trace's.
        taxonomy: gives the behaviour of each gate.
        traces, problems: traces of the thinking model and their problems, in the same order.
        acts: the harvested sentences of these traces. A gate gets the behaviour of the sentence that its token belongs
            to. Without ``acts``, and for a token in no sentence, the taxonomy reads the thinking model's state that
            predicts the token.
        batch_size: number of traces in a batch.

    Yields:
        Batches of traces of similar length.

    Raises:
        ProbeError: if a trace has a token that the base model cannot read.
        ValueError: if traces and problems are not in the same order.
    """
    named = None if acts is None else token_behaviours(taxonomy, traces, acts)
    for part, emitted in text_batches(pair, traces, problems, batch_size):
        said = None if named is None else [named[i] for i in part]
        yield gates_of(pair, taxonomy, [(traces[i], problems[i]) for i in part], emitted, said)


def gates_of(
    pair: Pair,
    taxonomy: Taxonomy,
    texts: Sequence[tuple[Trace, Problem]],
    emitted: Sequence[Sequence[int]],
    said: Sequence[Int[Tensor, " _"]] | None,
) -> GateBatch:
    """Find the gates of one batch.

    Args:
        texts: the trace and the problem of each text. The thinking model reads it after the prompt of the trace.
        emitted: the emitted tokens of each text.
        said: the behaviours at the tokens of each text, −1 where they are unknown; None if all are.
    """
    forced = force(pair.base, [pair.base.prompt_ids(problem.question) for _, problem in texts], emitted)
    asked = force(pair.thinking, [pair.thinking.encode_prompt(trace.prompt) for trace, _ in texts], emitted)
    # As in decoding: a token that only the thinking model has cannot be produced by steering the base model.
    vocab = min(n_logits(pair.base), n_logits(pair.thinking))
    site = f"resid_post.{taxonomy.layer}"

    def most_likely(logits: Float[Tensor, "some vocab"], _: Tensor) -> Int[Tensor, " some"]:
        return logits[..., :vocab].argmax(-1)

    def of_base(some: Forced) -> tuple[Tensor, ...]:
        return (forced_pass(pair.base, some).over_logits(most_likely),)

    def of_thinking(some: Forced) -> tuple[Tensor, ...]:
        ran = forced_pass(pair.thinking, some, site)
        return ran.over_logits(most_likely), behaviours(taxonomy, ran.predicting(site))

    (base_token,) = in_rows(pair.base, forced, of_base, what="finding gates")
    thinking_token, behaviour = in_rows(pair.thinking, asked, of_thinking, what="finding gates")
    target, behaviour = thinking_token.to(forced.ids.device), behaviour.to(forced.ids.device)
    gate = (base_token.to(forced.ids.device) != target) & forced.emitted
    for row, labels in enumerate(said or ()):
        known = labels[: len(emitted[row])].to(behaviour)
        behaviour[row, : len(known)] = torch.where(known >= 0, known, behaviour[row, : len(known)])
    return GateBatch(forced, gate, behaviour, target)


def behaviours(taxonomy: Taxonomy, states: Float[Tensor, "*axes d_model"]) -> Int[Tensor, "*axes"]:
    """Classify states, some at a time, because a taxonomy copies them in float32."""
    flat = states.flatten(0, -2)
    return torch.cat([taxonomy.behaviour(some) for some in flat.split(_AT_A_TIME)]).view(states.shape[:-1])


class TokenBehaviours(Sequence[Tensor]):
    """The behaviour at each token of some traces, made when a trace is asked for."""

    def __init__(self, taxonomy: Taxonomy, traces: Sequence[Trace], acts: SentenceActivations) -> None:
        self._traces = traces
        of, sentences = torch.tensor(acts.index, dtype=torch.int32).reshape(-1, 2).T
        of, order = of.sort(stable=True)
        self._sentences = sentences[order]
        self._behaviours = taxonomy.behaviour(acts.rows(taxonomy.site)).to("cpu", torch.int32)[order]
        self._begins = torch.searchsorted(of, torch.arange(len(traces) + 1, dtype=torch.int32))

    def __len__(self) -> int:
        return len(self._traces)

    def __getitem__(self, i: int) -> Int[Tensor, " tokens"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        i %= len(self)
        trace = self._traces[i]
        labels = torch.full((len(trace.tokens) + 1,), -1)
        own = slice(int(self._begins[i]), int(self._begins[i + 1]))
        for sentence, behaviour in zip(self._sentences[own].tolist(), self._behaviours[own].tolist(), strict=True):
            span = trace.sentences[sentence]
            end = len(labels) if span.token_end == len(trace.tokens) else span.token_end
            labels[span.token_start : end] = behaviour
        return labels


def token_behaviours(taxonomy: Taxonomy, traces: Sequence[Trace], acts: SentenceActivations) -> TokenBehaviours:
    """Find the behaviour of the sentence that each emitted token belongs to.

    Args:
        taxonomy: classifies the sentences.
        traces: the traces whose tokens are labelled.
        acts: the harvested sentences of these traces; sentences of further traces are ignored.

    Returns:
        For each trace one behaviour for each token and one for the end token, which belongs to the last sentence; −1
        where the behaviour is unknown.
    """
    return TokenBehaviours(taxonomy, traces, acts)


def text_batches(
    pair: Pair, traces: Sequence[Trace], problems: Sequence[Problem], batch_size: int
) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Sort traces by length and divide them into batches; empty traces are left out.

    Args:
        pair: the thinking model's end token is appended to traces that were not truncated; of several, the first that
            the base model can read too.
        traces, problems: traces and their problems, in the same order.
        batch_size: number of traces in a batch.

    Yields:
        For each batch the indices of its traces, and the emitted tokens of each.

    Raises:
        ProbeError: if a trace has a token that one of the models cannot read.
        ValueError: if traces and problems are not in the same order.
    """
    for trace, problem in zip(traces, problems, strict=True):
        if trace.problem_id != problem.id:
            raise ValueError(
                f"a trace of {trace.problem_id} is paired with problem {problem.id}: give both in the same order"
            )
    both = min(pair.base.n_embeddings, pair.thinking.n_embeddings)
    for trace in traces:
        if beyond := [token for token in trace.tokens if token >= both]:
            raise ProbeError(
                f"the trace of {trace.problem_id} has token {beyond[0]}, but only ids below {both} have a row in the "
                f"embeddings of both {pair.base.name} and {pair.thinking.name}; leave that trace out, or resize the "
                "smaller embedding"
            )
    end = [token for token in pair.thinking.eos_ids if token < both][:1]
    lengths = [len(trace.tokens) + (0 if trace.truncated else len(end)) for trace in traces]
    order = sorted((i for i, length in enumerate(lengths) if length), key=lambda i: lengths[i])
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        yield part, [[*traces[i].tokens, *([] if traces[i].truncated else end)] for i in part]
