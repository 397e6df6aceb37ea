"""How much each token of a text mattered for a number, or for each sentence: gradient × state, in one backward pass."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.circuits.edges.lens import Metric
from probe.errors import ProbeError
from probe.hooks import (
    Apply,
    Head as Unembedding,
    TrainingCost,
    as_sites,
    checkpointed,
    cross_entropy,
    edit,
    score_logits,
    states_of,
)
from probe.html import MapSource, trace_map_html
from probe.models import Model
from probe.progress import progress_bar
from probe.traces import token_texts


@dataclass(frozen=True)
class SentenceAttribution:
    """How much each token of a text changed the log-probability of some of its sentences, to first order.

    Attributes:
        tokens: the tokens of the text.
        spans: for each sentence, the index in ``tokens`` of its first token and of the one after its last.
        site: where the states were taken.
        scores: gradient × state of each token, in nats for each token of the sentence that is explained; zero for
            later tokens, and NaN for sentences that were not explained.
    """

    tokens: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    site: str
    scores: Float[Tensor, "sentences tokens"]

    def by_sentence(self) -> Float[Tensor, "sentences sentences"]:
        """What the tokens of each sentence (column) add to each sentence (row); sums over tokens."""
        return torch.stack([self.scores[:, start:end].sum(1) for start, end in self.spans], 1)

    def source(self, n_links: int = 6) -> MapSource:
        """The scores as :func:`~probe.html.trace_map_html` shows them.

        Args:
            n_links: the number of tokens that are named for each sentence, those with the largest absolute scores.
        """
        scores = self.scores.nan_to_num(0.0)
        some = min(n_links, scores.shape[1])
        to = scores.abs().topk(some, -1).indices
        owner = torch.full((len(self.tokens),), -1)
        for i, (start, end) in enumerate(self.spans):
            owner[start:end] = i
        weight = scores.gather(1, to)[owner] * (owner >= 0)[:, None]
        return MapSource(f"attribution at {self.site}", self.by_sentence().nan_to_num(0.0), (to[owner].int(), weight))

    def __repr__(self) -> str:
        known = int((~self.scores.isnan()).all(1).sum())
        return f"SentenceAttribution({known} of {len(self.spans)} sentences, {len(self.tokens)} tokens, at {self.site})"

    def _repr_html_(self) -> str:
        return trace_map_html(self.tokens, self.spans, [self.source()], repr(self))


def token_attribution(
    model: Model, ids: Int[Tensor, " pos"], metric: Metric, site: str = "embed"
) -> Float[Tensor, " pos"]:
    """Estimate how much each token of a text adds to a metric: the gradient times the token's state.

    The product is what the metric would lose, to first order, if the state were zero (Simonyan et al., 1312.6034;
    Shrikumar et al., 1605.01713). Where the metric saturates the estimate is too small.

    Args:
        metric: computes one number from the logits at the last token, such as
            :func:`~probe.circuits.logit_difference`.
        site: where the states are taken: ``embed`` or a residual site such as ``resid_post.3``.

    Returns:
        One score for each token, in units of the metric.

    Raises:
        ProbeError: if the site has no state for each token, or the weights pass no gradient.
    """

    def value(states: Float[Tensor, "pos d_model"]) -> Tensor:
        return metric(Unembedding(model)(states[None, -1:]))[0]

    return _gradient_times_state(model, ids, value, site)


def sentence_attribution(
    model: Model,
    ids: Int[Tensor, " pos"],
    spans: Sequence[tuple[int, int]],
    site: str = "embed",
    *,
    sentences: Sequence[int] | None = None,
    progress: bool = False,
) -> SentenceAttribution:
    """Estimate how much each token adds to the mean log-probability of the tokens of later sentences.

    Each sentence takes a pass over the text up to its end, forward and backward. Blocks keep only their inputs, so the
    memory of a pass grows with tokens × width × blocks and not with tokens².

    Args:
        spans: for each sentence, the index in ``ids`` of its first token and of the one after its last.
        site: where the states are taken, as in :func:`token_attribution`.
        sentences: the numbers of the sentences that are explained; None for all.
        progress: show a progress bar.

    Raises:
        ProbeError: if a span is empty or lies outside the text, or the first sentence has nothing before it.
    """
    for start, end in spans:
        if not 0 < start < end <= len(ids):
            raise ProbeError(
                f"tokens {start} to {end} are not a sentence after the first token of a text of {len(ids)} tokens; "
                "put the prompt before the sentences"
            )
    size = TrainingCost.of(model).chunk(model.budget)
    scores = torch.full((len(spans), len(ids)), torch.nan)
    asked = range(len(spans)) if sentences is None else sentences
    for i in progress_bar(asked, desc="sentences", unit="sentence", show=progress):
        start, end = spans[i]
        targets = ids[start:end].to(model.device)

        def value(states: Float[Tensor, "pos d_model"], start: int = start, targets: Tensor = targets) -> Tensor:
            some = states[None, start - 1 : -1]
            places = torch.ones(some.shape[:2], dtype=torch.bool, device=some.device)
            losses = score_logits(cross_entropy, [(Unembedding(model), some)], places, targets, size=size)
            return -losses.mean()

        scores[i, :end] = _gradient_times_state(model, ids[:end], value, site)
        scores[i, end:] = 0
    said = tuple(token_texts(ids.tolist(), model.decode, model.tokenizer))
    return SentenceAttribution(said, tuple(spans), site, scores)


def _gradient_times_state(
    model: Model, ids: Int[Tensor, " pos"], value: Callable[[Tensor], Tensor], site: str
) -> Float[Tensor, " pos"]:
    """Differentiate a value of the states that the head reads with respect to each token's state at a site."""
    model.check_gradient("attribution to tokens")
    (where,) = as_sites(site)
    if not where.by_token:
        raise ProbeError(f"{site} has no state for each token; take embed or a residual site such as resid_post.3")
    start: list[Tensor] = []

    def leaf(state: Tensor) -> Tensor:
        if not start:  # a checkpointed block runs again in the backward pass
            start.append(state.detach().requires_grad_())
        return start[0]

    with torch.enable_grad(), _light(model), edit(model, {str(where): Apply(leaf)}):
        states = states_of(model, input_ids=ids.to(model.device)[None], use_cache=False)
        (slope,) = torch.autograd.grad(value(states[0]), start)
    return (slope.float() * start[0].detach().float())[0].flatten(1).sum(1).cpu()


@contextmanager
def _light(model: Model) -> Iterator[None]:
    """Let blocks keep only their inputs, where the architecture can; dropout stays off."""
    hf: Any = model.hf
    if not getattr(hf, "supports_gradient_checkpointing", False):
        yield
        return
    blocks = list(model.layers)

    def training(mode: bool) -> Callable[..., None]:
        return lambda block, *_: setattr(block, "training", mode)

    # transformers checkpoints a block that is in training mode; inside, some blocks drop out states in that mode.
    hooks = [block.register_forward_pre_hook(training(False)) for block in blocks]
    hooks += [block.register_forward_hook(training(True)) for block in blocks]
    with checkpointed(model):
        try:
            for block in blocks:
                block.training = True
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for block in blocks:
                block.training = False
