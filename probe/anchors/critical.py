"""Critical tokens, after which a trace fails: found by rollouts, or cheaply by the contrast of two models.

Lin et al., *Critical Tokens Matter* (2411.19943).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.anchors.rollouts import RolloutSettings, roll_out
from probe.errors import ProbeError
from probe.hooks import Forced, force, forced_pass
from probe.models import Model
from probe.problems import Problem, ProblemSet
from probe.traces import Trace, token_texts

_LOST = 0.05
"""Accuracy stays below this after the critical token."""


@dataclass(frozen=True)
class CriticalTokens:
    """The accuracy of rollouts after each token of a trace.

    Attributes:
        tokens: the tokens as text.
        accuracy: accuracy of rollouts that keep the trace up to and including the token.
        critical: index of the first token after which no rollout is right, and almost none after any later token; None
            if there is no such token.
    """

    tokens: tuple[str, ...]
    accuracy: tuple[float, ...]
    critical: int | None

    def __repr__(self) -> str:
        return f"CriticalTokens({len(self.tokens)} tokens, critical: {self.critical})"

    def _repr_html_(self) -> str:
        pieces = "".join(
            f'<span title="{share:.0%}" style="background:rgba(200,100,30,{1 - share:.2f});'
            f"{'outline:2px solid #c8641e;' if i == self.critical else ''}"
            f'{"" if token else "padding:0 2px"}">{escape(token)}</span>'
            for i, (token, share) in enumerate(zip(self.tokens, self.accuracy, strict=True))
        )
        said = "orange: low accuracy · framed: the critical token"
        return f'<p style="line-height:1.9;white-space:pre-wrap">{pieces}</p><p>{said}</p>'


def critical_tokens(
    model: Model,
    problem_set: ProblemSet,
    problem: Problem,
    trace: Trace,
    **how: Unpack[RolloutSettings],
) -> CriticalTokens:
    """Find the critical token of a trace by rollouts from every token, which is its definition, but expensive.

    Args:
        model: the model that continues the trace.
        problem_set: grades the answers.
        trace: the trace, normally one with a wrong answer.
        **how: see :class:`RolloutSettings`; by default 64 samples, as in the paper, of at most 256 tokens.

    Raises:
        ProbeError: if the answer of the problem is not known.
    """
    if problem.answer is None:
        raise ProbeError(f"no answer is known to {problem.id}, so no rollout can be graded; give the problem an answer")
    settings = RolloutSettings(n_samples=64, max_new_tokens=256) | how
    places = range(1, len(trace.tokens) + 1)
    found = roll_out(model, problem_set, problem, trace, places=places, **settings)
    shares = [each.accuracy for each in found]
    lost = [i for i in range(len(shares)) if shares[i] == 0 and all(share < _LOST for share in shares[i:])]
    tokens = tuple(token_texts(trace.tokens, model.decode, model.tokenizer))
    return CriticalTokens(tokens, tuple(shares), lost[0] if lost else None)


def contrast(
    right: Model, wrong: Model, problem: Problem, trace: Trace, *, beta: float = 1.0
) -> Float[Tensor, " tokens"]:
    """Score each token of a trace by the contrast of two models; the critical token has the lowest score.

    The score is ``(1 + beta) log P_right − beta log P_wrong``, normalised over the vocabulary.

    Args:
        right: a model that solves problems; in the paper, one tuned on right traces. It reads its own prompt.
        wrong: a model that fails more often, with the same tokenizer; in the paper, one tuned on wrong traces of the
            same problems. The base of a thinking model will do.
        beta: weight of the wrong model.

    Returns:
        The score of each emitted token, a log-probability in nats.
    """
    scores = []
    for ours, theirs, tokens in both_log_probs(right, wrong, problem, trace):
        score = ((1 + beta) * ours - beta * theirs).log_softmax(-1)
        scores.append(score.gather(1, tokens[:, None])[:, 0].cpu())
    return torch.cat(scores)


def both_log_probs(
    first: Model, second: Model, problem: Problem, trace: Trace
) -> Iterator[tuple[Float[Tensor, "some vocab"], Float[Tensor, "some vocab"], Int[Tensor, " some"]]]:
    """Compute the log-probabilities in nats that predict the tokens of a trace in two models, some tokens at a time.

    Args:
        first, second: the models, each with its own prompt before the trace.

    Yields:
        The log-probabilities of the first and of the second model, over the ids that both have, and the tokens; all on
        the first model's device.
    """
    passes = [forced_pass(model, _forced(model, problem, trace)) for model in (first, second)]
    # What is computed of them takes several times the memory of the logits themselves.
    size = max(1, min(ran.chunk for ran in passes) // 4)
    for (ours, tokens), (theirs, _) in zip(*(ran.in_chunks(size) for ran in passes), strict=True):
        both = min(ours.shape[-1], theirs.shape[-1])
        one, other = (logits.float().log_softmax(-1)[:, :both].to(ours.device) for logits in (ours, theirs))
        yield one, other, tokens


def entropy(model: Model, problem: Problem, trace: Trace) -> Float[Tensor, " tokens"]:
    """Compute the entropy in nats of the distribution that predicts each token of a trace, a simple baseline.

    Args:
        model: the model, with its own prompt before the trace.
    """

    def read(logits: Float[Tensor, "some vocab"], _: Tensor) -> Float[Tensor, " some"]:
        return torch.distributions.Categorical(logits=logits.float()).entropy()

    return forced_pass(model, _forced(model, problem, trace)).over_logits(read)[0].cpu()


def _forced(model: Model, problem: Problem, trace: Trace) -> Forced:
    return force(model, [model.prompt_ids(problem.question)], [trace.tokens])
