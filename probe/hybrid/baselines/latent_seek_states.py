"""The latent states that LatentSeek updates: the states that the head reads at the first tokens of each answer."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from probe.hooks import Forced, Head, TrainingCost, causal_masks, force, in_rows, n_logits, not_finite, states_of
from probe.models import Model, Sampling, halving
from probe.traces import draw

NUMBERS = 4
"""Numbers that are held for each latent number: itself, its gradient, and two moments of Adam."""


class Latents:
    """Latent states of several answers, in float32, and an Adam with steps of its own for each answer.

    Args:
        model: the model that answered.
        prompts: token ids of the prompt of each answer.
        tokens: the first token ids of each answer, one for each state that is updated; at least one.
        keys: the keys of the random numbers of each answer, from :func:`~probe.traces.sample_key`.
        lr: the learning rate.
        sampling: how a token is chosen from a state.

    Attributes:
        states: the states of each answer, ``[tokens, d]``.
        tokens: the token that each state gives now; at first those of the answers.
    """

    def __init__(
        self,
        model: Model,
        prompts: Sequence[Sequence[int]],
        tokens: Sequence[Sequence[int]],
        keys: Sequence[int],
        *,
        lr: float,
        sampling: Sampling,
    ) -> None:
        self.tokens: list[list[int]] = [list(each) for each in tokens]
        self._model, self._keys, self._sampling = model, keys, sampling
        self._head = Head(model)
        self._size = TrainingCost.of(model).chunk(model.budget)
        # Rows of an embedding beyond the tokenizer's tokens must not be sampled.
        self._vocab = n_logits(model) if sampling.greedy else len(model.tokenizer)
        self.states = [nn.Parameter(each) for each in _states(model, prompts, tokens)]
        self._adam = torch.optim.Adam(self.states, lr=lr)

    def update(self, rows: Sequence[int], rewards: Sequence[float]) -> None:
        """Make a step of the policy gradient for some answers, and choose the tokens that their states give then.

        The loss of an answer is ``−reward · Σ log p(token)`` over its states, where the token is the one that the state
        gives now. States after the first end token are no part of the answer, and of the loss.

        Args:
            rows: the answers.
            rewards: the reward of each of them.
        """
        slopes = self._in_chunks(rows, self._slopes, rewards)
        self._adam.zero_grad(set_to_none=True)  # an answer without a gradient is left as it is
        for row, slope in zip(rows, slopes, strict=True):
            self.states[row].grad = slope
        self._adam.step()
        for row, tokens in zip(rows, self._in_chunks(rows, self._chosen, rewards), strict=True):
            self.tokens[row] = tokens.tolist()

    def _in_chunks(
        self, rows: Sequence[int], work: Callable[..., Tensor], rewards: Sequence[float]
    ) -> tuple[Tensor, ...]:
        """Do work on the states of some answers, as many states at a time as memory allows; the results by answer."""
        device = self._model.device
        lengths = [len(self.tokens[row]) for row in rows]
        states = torch.cat([self.states[row].detach() for row in rows])
        tokens = torch.tensor([token for row in rows for token in self.tokens[row]], device=device)
        values = torch.tensor([each for pair in zip(rows, rewards, strict=True) for each in self._at_states(*pair)])
        keys = torch.tensor([self._keys[row] for row, n in zip(rows, lengths, strict=True) for _ in range(n)])
        places = torch.cat([torch.arange(n) for n in lengths])
        each = (states, tokens, values.to(device), keys.to(device), places.to(device))

        def run(size: int) -> Tensor:
            return torch.cat([work(*some) for some in zip(*(part.split(size) for part in each), strict=True)])

        return halving(run, self._size, device=device, what="updating latent states").split(lengths)

    def _at_states(self, row: int, reward: float) -> list[float]:
        """The reward of an answer at each of its states: 0 after its first end token."""
        ended = [at for at, token in enumerate(self.tokens[row]) if token in self._model.eos_ids]
        counted = ended[0] + 1 if ended else len(self.tokens[row])
        return [reward] * counted + [0.0] * (len(self.tokens[row]) - counted)

    def _logits(self, states: Float[Tensor, "some d"]) -> Float[Tensor, "some vocab"]:
        return self._head(states[None].to(self._model.dtype))[0, :, : self._vocab].float()

    def _slopes(
        self,
        states: Float[Tensor, "some d"],
        tokens: Int[Tensor, " some"],
        rewards: Float[Tensor, " some"],
        *_: Tensor,
    ) -> Float[Tensor, "some d"]:
        """The gradient of the loss at each state."""
        with torch.enable_grad():
            states = states.clone().requires_grad_()
            chances = self._logits(states).log_softmax(-1)
            loss = -(rewards * chances.gather(-1, tokens[:, None])[:, 0]).sum()
            return torch.autograd.grad(loss, states)[0]

    @torch.no_grad()
    def _chosen(
        self,
        states: Float[Tensor, "some d"],
        tokens: Int[Tensor, " some"],  # noqa: ARG002
        rewards: Float[Tensor, " some"],  # noqa: ARG002
        keys: Int[Tensor, " some"],
        places: Int[Tensor, " some"],
    ) -> Int[Tensor, " some"]:
        """The token that each state gives."""
        chosen = draw(self._logits(states), keys, places, self._sampling)
        if (chosen < 0).any():
            raise not_finite("a logit of an updated state", self._model)
        return chosen


@torch.no_grad()
def _states(
    model: Model, prompts: Sequence[Sequence[int]], tokens: Sequence[Sequence[int]]
) -> list[Float[Tensor, "tokens d"]]:
    """The states from which the head predicts each token, in float32."""
    forced = force(model, prompts, tokens)

    def read(some: Forced) -> tuple[Tensor]:
        width = some.ids.shape[1]
        masks = causal_masks(model, some.valid, width)
        states = states_of(
            model, input_ids=some.ids, attention_mask=masks, position_ids=some.positions, use_cache=False
        )
        return (states[torch.arange(len(states), device=states.device)[:, None], some.predicts].float(),)

    (states,) = in_rows(model, forced, read, what="reading latent states")
    return [each[: len(row)].clone() for each, row in zip(states, tokens, strict=True)]
