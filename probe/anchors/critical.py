"""Critical tokens: where a trace is lost. Found by rollouts, and cheaply by the contrast of two models.

Lin et al., *Critical Tokens Matter* (2411.19943).
"""

from dataclasses import dataclass
from html import escape

import torch
from jaxtyping import Float
from torch import Tensor

from probe.anchors.rollouts import roll_out
from probe.hooks import force, forced_pass
from probe.models import Model
from probe.problems import Problem, ProblemSet
from probe.traces import Trace

_LOST = 0.05
"""After the critical token, less than this share of rollouts is right."""


@dataclass(frozen=True)
class CriticalTokens:
    """The share of right rollouts after each token of a trace.

    Attributes:
        tokens: as text.
        accuracy: of rollouts that keep the trace up to and with the token.
        critical: the first token after which no rollout is right, and after all later ones next to none; None if the
            trace is never lost.
    """

    tokens: tuple[str, ...]
    accuracy: tuple[float, ...]
    critical: int | None

    def _repr_html_(self) -> str:
        pieces = "".join(
            f'<span title="{share:.0%}" style="background:rgba(200,100,30,{1 - share:.2f});'
            f'{"outline:2px solid #c8641e" if i == self.critical else ""}">{escape(token)}</span>'
            for i, (token, share) in enumerate(zip(self.tokens, self.accuracy, strict=True))
        )
        return f'<p style="line-height:1.9">{pieces}</p><p>orange: lost · framed: the critical token</p>'


def critical_tokens(
    model: Model,
    problem_set: ProblemSet,
    problem: Problem,
    trace: Trace,
    *,
    samples: int = 64,
    max_new_tokens: int = 256,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    progress: bool = False,
) -> CriticalTokens:
    """Roll out from every token of a trace: dear, and the definition.

    Args:
        trace: a wrong one, as a rule.
        samples: rollouts from each token; the paper takes 64.
        seed: of the draws.
        progress: show a bar.
    """
    found = roll_out(
        model,
        problem_set,
        problem,
        trace,
        range(1, len(trace.tokens) + 1),
        samples=samples,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        progress=progress,
    )
    shares = [each.accuracy for each in found]
    lost = [i for i in range(len(shares)) if shares[i] == 0 and all(share < _LOST for share in shares[i:])]
    tokens = tuple(model.decode([token]) for token in trace.tokens)
    return CriticalTokens(tokens, tuple(shares), lost[0] if lost else None)


def contrast(right: Model, wrong: Model, problem: Problem, trace: Trace, beta: float = 1.0) -> Float[Tensor, " tokens"]:
    """How much likelier a token is to a model that solves than to one that fails; the critical token scores lowest.

    ``(1 + beta) log P(right) − beta log P(wrong)``, each normalised over the vocabulary (the paper's P are the model
    tuned on right and on wrong traces of the same problems; a thinking model and its base are two such).

    Args:
        right, wrong: two models of one tokenizer, each with its own prompt.
    """
    ours, theirs = (log_probs(model, problem, trace) for model in (right, wrong))
    ours, theirs = ours[:, : theirs.shape[1]], theirs[:, : ours.shape[1]]
    score = ((1 + beta) * ours - beta * theirs).log_softmax(-1)
    return score.gather(1, torch.tensor(trace.tokens)[:, None])[:, 0]


def entropy(model: Model, problem: Problem, trace: Trace) -> Float[Tensor, " tokens"]:
    """Entropy in nats of what each token was drawn from: the plainest sign that something is decided there."""
    return torch.distributions.Categorical(logits=log_probs(model, problem, trace)).entropy()


def log_probs(model: Model, problem: Problem, trace: Trace) -> Float[Tensor, "tokens vocab"]:
    """What each token of a trace was predicted by, with the model's own prompt before it."""
    forced = force(model, [model.prompt_ids(problem.question)], [trace.tokens])
    return forced_pass(model, forced).logits[0].float().log_softmax(-1).cpu()
