"""Pivotal tokens, which change the chance of the right answer by much, found by halving the trace."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Unpack

from probe.anchors.answers import answer_clusters
from probe.anchors.rollouts import Continuations, RolloutSettings, roll_out
from probe.errors import ProbeError
from probe.html import html_table
from probe.models import Model
from probe.problems import Problem, ProblemSet
from probe.traces import Trace, token_texts

Roll = Callable[[Sequence[int]], Sequence[Continuations]]
"""Gives the rollouts from some places of a trace."""


@dataclass(frozen=True)
class PivotalToken:
    """A token, and the chance of success before and after it.

    Attributes:
        place: its index in the trace.
        token: its text.
        before, after: the share of rollouts that succeed without the token and with it.
        context: the text of the trace before it.
    """

    place: int
    token: str
    before: float
    after: float
    context: str

    def __repr__(self) -> str:
        return f"PivotalToken({self.token!r} at {self.place}: {self.before:.2f} → {self.after:.2f})"


@dataclass(frozen=True)
class PivotalTokens:
    """The pivotal tokens of one trace.

    Attributes:
        tokens: the tokens, in order.
        curve: the places that were tried, as numbers of tokens, and the share of rollouts that succeed from there.
        against: what success is: ``right answer``, or ``answer of the trace`` where no answer is known.
        prompt: the text before the trace.
    """

    tokens: tuple[PivotalToken, ...]
    curve: tuple[tuple[int, float], ...]
    against: str
    prompt: str

    def rows(self) -> Iterator[dict[str, Any]]:
        """The tokens as records of a file: prompt, context, token, and the chance before and after it."""
        for each in self.tokens:
            yield {
                "query": self.prompt,
                "pivot_context": self.prompt + each.context,
                "pivot_token": each.token,
                "prob_before": each.before,
                "prob_after": each.after,
                "prob_delta": each.after - each.before,
                "is_positive": each.after > each.before,
                "position": each.place,
            }

    def lines(self) -> str:
        """The rows as JSON lines."""
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows())

    def __repr__(self) -> str:
        return f"PivotalTokens({len(self.tokens)} tokens, {len(self.curve)} places tried)"

    def _repr_html_(self) -> str:
        rows = [
            (each.place, each.context[-60:], each.token, f"{each.before:.0%}", f"{each.after:.0%}")
            for each in self.tokens
        ]
        return html_table(("token", "after", "text", "before", "with it"), rows) + f"<p>{escape(self.against)}</p>"


def pivotal_tokens(
    model: Model,
    problem_set: ProblemSet,
    problem: Problem,
    trace: Trace,
    *,
    least: float = 0.2,
    rollouts: Roll | None = None,
    **how: Unpack[RolloutSettings],
) -> PivotalTokens:
    """Find the tokens of a trace that change the chance of success by at least ``least``.

    A stretch of the trace whose ends differ by that much is halved until it is one token (Abdin et al., *Phi-4*,
    2412.08905). So a trace of thousands of tokens needs rollouts from few places; a stretch in which the chance rises
    and falls again by as much is overlooked.

    Args:
        model: the model that continues the trace.
        problem_set: grades the answers.
        least: the smallest change that counts.
        rollouts: gives the rollouts from some places, if they are kept somewhere; None for :func:`roll_out`.
        **how: see :class:`RolloutSettings`; by default 64 samples of at most 256 tokens.

    Raises:
        ProbeError: if neither the problem nor the trace has an answer, or ``least`` is not between 0 and 1.
    """
    if not 0 < least <= 1:
        raise ProbeError(f"least is {least}; it is a change of a share, above 0 and at most 1")
    if problem.answer is None and trace.answer is None:
        raise ProbeError(f"neither {problem.id} nor its trace has an answer, so no rollout can succeed")
    settings = RolloutSettings(n_samples=64, max_new_tokens=256) | how

    def roll(places: Sequence[int]) -> Sequence[Continuations]:
        if rollouts is not None:
            return rollouts(places)
        return roll_out(model, problem_set, problem, trace, places=places, **settings)

    chance: dict[int, float] = {}
    wanted, stretches = [0, len(trace.tokens)], [(0, len(trace.tokens))]
    while wanted:
        for place, found in zip(wanted, roll(wanted), strict=True):
            chance[place] = success(problem_set, problem, trace.answer, found)
        stretches = [
            half
            for first, last in stretches
            if last - first > 1 and abs(chance[last] - chance[first]) >= least
            for half in ((first, (first + last) // 2), ((first + last) // 2, last))
        ]
        wanted = sorted({place for stretch in stretches for place in stretch} - chance.keys())
    texts = token_texts(trace.tokens, model.decode, model.tokenizer)
    found = [
        PivotalToken(i, texts[i], chance[i], chance[i + 1], "".join(texts[:i]))
        for i in range(len(texts))
        if i in chance and i + 1 in chance and abs(chance[i + 1] - chance[i]) >= least
    ]
    against = "answer of the trace" if problem.answer is None else "right answer"
    return PivotalTokens(tuple(found), tuple(sorted(chance.items())), against, model.prompt_text(problem.question))


def success(problem_set: ProblemSet, problem: Problem, answer: str | None, found: Continuations) -> float:
    """The share of rollouts that give the right answer; where it is not known, that give the answer of the trace."""
    if problem.answer is not None:
        return found.accuracy
    names = answer_clusters(problem_set, problem, [*found.answers, answer])
    return sum(names[each] == names[answer] for each in found.answers) / len(found) if len(found) else float("nan")
