"""What an SAE is made to do inside a model: its reconstruction in place of a state, or changes of chosen latents.

Each is a function from the state to a new one, for :func:`inserted` or for :func:`probe.edit` at a site. All but
``Replace`` and ``Noise`` keep what the SAE does not explain, so that only the latents named are changed.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probe.adapters.sae.folders import site_of
from probe.hooks import Apply, Selection, Tokens, edit
from probe.models import Model, Site

if TYPE_CHECKING:
    from sae_lens import SAE

#: How many times the median a state must be to be an outlier; the same as of a harvest.
OUTLIER = 10.0
State = Float[Tensor, "batch pos d_model"]


@dataclass(frozen=True)
class Insertion(ABC):
    """A change of the state at an SAE's site."""

    sae: "SAE[Any]"

    @abstractmethod
    def __call__(self, state: State, /) -> State:
        """The new state."""


@dataclass(frozen=True)
class Replace(Insertion):
    """The reconstruction in the state's place.

    Attributes:
        through: whether gradients cross the SAE. Resa's published code stops them there, so that no layer at or below
            the site can learn.
        keep_error: add what the SAE does not explain, as a constant: nothing changes but the gradient's way.
    """

    through: bool = True
    keep_error: bool = False

    def __call__(self, state: State, /) -> State:
        with torch.set_grad_enabled(self.through and torch.is_grad_enabled()):
            made = self.sae(state.to(self.sae.dtype)).to(state.dtype)
        return made + (state - made).detach() if self.keep_error else made


@dataclass(frozen=True)
class Noise(Insertion):
    """The state plus noise that is, token by token, as long as the SAE's error: the control that a claim must beat.

    Attributes:
        seed: draws the noise, the same at every pass of a shape; None draws it anew from torch's own state.
    """

    seed: int | None = None
    through: bool = True

    def __call__(self, state: State, /) -> State:
        with torch.no_grad():
            error = state.float() - self.sae(state.to(self.sae.dtype)).float()
            generator = None if self.seed is None else torch.Generator().manual_seed(self.seed)
            drawn = torch.randn(state.shape, generator=generator).to(error)
            noise = torch.nn.functional.normalize(drawn, dim=-1) * error.norm(dim=-1, keepdim=True)
        return (state if self.through else state.detach()) + noise.to(state.dtype)


@dataclass(frozen=True)
class Ablate(Insertion):
    """Chosen latents are switched off."""

    latents: tuple[int, ...]

    def __call__(self, state: State, /) -> State:
        return _with_latents(self.sae, state, self.latents, lambda now: torch.zeros_like(now))


@dataclass(frozen=True)
class Boost(Insertion):
    """Chosen latents are raised to at least ``value``, one for all or one each, in the units of the SAE's latents."""

    latents: tuple[int, ...]
    value: float | tuple[float, ...]

    def __call__(self, state: State, /) -> State:
        return _with_latents(self.sae, state, self.latents, lambda now: now.maximum(now.new_tensor(self.value)))


def _with_latents(sae: "SAE[Any]", state: State, latents: Sequence[int], change: Any) -> State:
    """The state with some latents changed; what it has beside them stays."""
    acts = sae.encode(state.to(sae.dtype))
    wanted = acts.clone()
    wanted[..., list(latents)] = change(acts[..., list(latents)])
    return state + (sae.decode(wanted) - sae.decode(acts)).to(state.dtype)


def ordinary_tokens(model: Model) -> Selection:
    """Every token but the special ones, which carry outlier states that an SAE was never trained on."""
    return Tokens(window=(0, None)) - Tokens(ids=sorted(model.tokenizer.all_special_ids))


def outliers(state: State, texts: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
    """Tokens that are :data:`OUTLIER` times as long as the median of their text: attention sinks, most of them.

    Args:
        texts: which text each token belongs to; negative at padding.
    """
    length, found = state.detach().float().norm(dim=-1), torch.zeros_like(texts, dtype=torch.bool)
    for text in texts.unique().tolist():
        if text >= 0:
            there = texts == text
            found |= there & (length > OUTLIER * length[there].median())
    return found


@contextmanager
def inserted(
    model: Model,
    insertion: Insertion,
    *,
    site: str | Site | None = None,
    tokens: Tokens | Selection | Bool[Tensor, "batch pos"] | None = None,
    texts: Int[Tensor, "batch pos"] | None = None,
) -> Iterator[None]:
    """Insert an SAE for the passes inside the block; afterwards the model is what it was, bit for bit.

    Args:
        site: None takes the SAE's own.
        tokens: where; None takes :func:`ordinary_tokens`. Booleans are for passes of one shape alone, whose attention
            mask may then be any.
        texts: with booleans, which text each token belongs to, negative at padding: :func:`outliers` of a text are left
            alone then. An SAE was never trained on them, and what is put in a sink's place breaks every later token.

    Raises:
        ProbeError: if the model has no such site, or of another width.
    """
    where = site_of(insertion.sae) if site is None else Site.parse(site)
    if isinstance(tokens, Tensor):

        def there(state: Tensor) -> Tensor:
            mask = tokens if texts is None else tokens & ~outliers(state, texts)
            return torch.where(mask[..., None], insertion(state), state)

        change = Apply(there)
    else:
        change = Apply(insertion, tokens=ordinary_tokens(model) if tokens is None else tokens)
    # Where gradients stop they stop at every token, also at those that are left alone.
    stop = [] if getattr(insertion, "through", True) else [Apply(Tensor.detach)]
    with edit(model, {where: [*stop, change]}):
        yield
