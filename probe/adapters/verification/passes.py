"""Forward passes over texts, one by one, with and without an adapter and with and without an insertion."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from probe.adapters.exports.attach import switched_off
from probe.adapters.sae.insertion import Insertion
from probe.adapters.sae.plain import check_sae
from probe.adapters.training.objective import kl, with_insertion
from probe.adapters.training.packing import Example, Packed, pack
from probe.hooks import Head, TrainingCost, capture, cross_entropy, score_logits
from probe.models import Model, halving
from probe.progress import progress_bar

if TYPE_CHECKING:
    from sae_lens import SAE


_ENCODED = 1024
"""The number of tokens whose latents are held at once."""


@dataclass(frozen=True, repr=False)
class TextMeans:
    """Means over the counted tokens of each text.

    Attributes:
        latents: activations of an SAE's latents.
        states: the state at its site.
    """

    latents: Float[Tensor, "texts latents"]
    states: Float[Tensor, "texts d_model"]

    def __repr__(self) -> str:
        return f"TextMeans({len(self.latents)} texts, {self.latents.shape[1]} latents)"


Side = tuple[bool, Insertion | None]
"""Whether the adapter is on, and what is inserted."""


class TextPasses:
    """Passes over texts with a model that has an adapter attached.

    Args:
        progress: show a bar for each round through the texts.
    """

    def __init__(self, model: Model, *, progress: bool = False) -> None:
        self.model, self.progress = model, progress

    def kl(self, texts: Sequence[Example], first: Side, second: Side) -> Float[Tensor, " texts"]:
        """KL(first ‖ second) of each text in nats, the mean over its counted tokens."""
        return self._per_text(texts, kl, [first, second])

    def ce(self, texts: Sequence[Example], *, adapted: bool) -> Float[Tensor, " texts"]:
        """The cross-entropy of each text in nats, the mean over its counted tokens."""
        return self._per_text(texts, cross_entropy, [(adapted, None)])

    @torch.no_grad()
    def means(self, texts: Sequence[Example], sae: "SAE[Any]", *, adapted: bool) -> TextMeans:
        """The mean latents and the mean state of each text at the SAE's site."""
        site, latents, states = check_sae(sae, self.model), [], []
        for batch in self._batches(texts):
            with self._maybe(adapted), capture(self.model, site) as acts:
                batch.run(self.model)
            state = acts[site][batch.counts].float()
            latents.append(_mean(lambda some: sae.encode(some.to(sae.dtype)).float(), state))
            states.append(state.mean(0))
        return TextMeans(torch.stack(latents).cpu(), torch.stack(states).cpu())

    @torch.no_grad()
    def _per_text(
        self, texts: Sequence[Example], score: Callable[..., Tensor], sides: Sequence[Side]
    ) -> Float[Tensor, " texts"]:
        """The mean over the counted tokens of each text of a score of the logits of one side or two."""
        head, found = Head(self.model), []
        cost = TrainingCost.of(self.model, models=len(sides))
        for batch in self._batches(texts):
            targets = [batch.targets] if len(sides) == 1 else []

            def work(budget: int, batch: Packed = batch, targets: Sequence[Tensor] = targets) -> Tensor:
                over = [(head, self._states(batch, side)) for side in sides]
                return score_logits(score, over, batch.counts, *targets, size=cost.chunk(budget)).mean().cpu()

            most = min(self.model.budget, cost.whole(*batch.ids.shape))
            what = f"comparing a text of {batch.ids.shape[1]} tokens with a budget in bytes"
            found.append(halving(work, most, device=self.model.device, what=what))
        return torch.stack(found)

    def _batches(self, texts: Sequence[Example]) -> Iterator[Packed]:
        for text in progress_bar(texts, desc="verifying", unit="text", leave=False, show=self.progress):
            yield pack(self.model, [text], len(text.ids))

    def _states(self, batch: Packed, side: Side) -> Tensor:
        adapted, insertion = side
        with self._maybe(adapted), with_insertion(self.model, insertion, batch):
            return batch.states(self.model)

    def _maybe(self, adapted: bool) -> AbstractContextManager[None]:
        return nullcontext() if adapted else switched_off(self.model)


def _mean(of: Callable[[Tensor], Tensor], rows: Float[Tensor, "n d"]) -> Float[Tensor, " k"]:
    """The mean of a function of each row; the values of some rows are held at once."""
    parts = rows.split(_ENCODED)
    if len(parts) == 1:
        return of(rows).mean(0)
    total = of(parts[0]).sum(0)
    for part in parts[1:]:
        total += of(part).sum(0)
    return total / len(rows)
