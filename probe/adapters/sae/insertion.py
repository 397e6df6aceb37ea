"""SAEs inside a model: the reconstruction in place of the state, noise as a control, or changes of chosen latents.

Each is a function from a state to a new state, for :func:`inserted` or for :func:`probe.edit` at a site. ``Ablate`` and
``Boost`` keep the part of the state that the SAE does not reconstruct, so that only the chosen latents change.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probe.adapters.sae.plain import check_sae, site_of
from probe.errors import ProbeError
from probe.hooks import Apply, Selection, Tokens, edit
from probe.models import Model, Site

if TYPE_CHECKING:
    from sae_lens import SAE

#: A state longer than this many times the median is an outlier, here as in a harvest.
OUTLIER = 10.0
State = Float[Tensor, "batch pos d_model"]


@dataclass(frozen=True)
class Insertion(ABC):
    """A change of the state at an SAE's site.

    Attributes:
        sae: the SAE.
    """

    sae: "SAE[Any]"

    def __post_init__(self) -> None:
        site_of(self.sae)

    @abstractmethod
    def __call__(self, state: State, /) -> State:
        """The new state, from the state at the site."""


@dataclass(frozen=True)
class Replace(Insertion):
    """The SAE's reconstruction in place of the state.

    Attributes:
        through: whether gradients pass through the SAE. Resa's published code stops them there, so that no layer at or
            below the site can learn.
        keep_error: add the reconstruction error as a constant: the state is unchanged, and only gradients differ.
    """

    through: bool = True
    keep_error: bool = False

    def __call__(self, state: State, /) -> State:
        with torch.set_grad_enabled(self.through and torch.is_grad_enabled()):
            made = self.sae(_as_input(self.sae, state)).to(state.dtype)
        return made + (state - made).detach() if self.keep_error else made


@dataclass(frozen=True)
class Noise(Insertion):
    """The state plus random noise with the norm of the SAE's error at each token: the control for ``Replace``.

    Attributes:
        seed: seeds the noise, which is then the same in every pass over the same shape; None takes new noise from
            torch's global generator in each pass.
        through: whether gradients pass through.
    """

    seed: int | None = None
    through: bool = True

    def __call__(self, state: State, /) -> State:
        with torch.no_grad():
            error = state.float() - self.sae(_as_input(self.sae, state)).float()
            generator = None if self.seed is None else torch.Generator().manual_seed(self.seed)
            direction = torch.randn(state.shape, generator=generator).to(error)
            noise = torch.nn.functional.normalize(direction, dim=-1) * error.norm(dim=-1, keepdim=True)
        return (state if self.through else state.detach()) + noise.to(state.dtype)


@dataclass(frozen=True)
class Ablate(Insertion):
    """The state with chosen latents set to zero.

    Attributes:
        latents: their numbers.
    """

    latents: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_latents(self.sae, self.latents)

    def __call__(self, state: State, /) -> State:
        return _with_latents(self.sae, state, self.latents, lambda now: torch.zeros_like(now))


@dataclass(frozen=True)
class Boost(Insertion):
    """The state with chosen latents raised to at least a value.

    Attributes:
        latents: their numbers.
        value: one activation for all latents, or one for each, in the SAE's units.
    """

    latents: tuple[int, ...]
    value: float | tuple[float, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_latents(self.sae, self.latents)

    def __call__(self, state: State, /) -> State:
        return _with_latents(self.sae, state, self.latents, lambda now: now.maximum(now.new_tensor(self.value)))


def check_latents(sae: "SAE[Any]", latents: Sequence[int]) -> None:
    """Check that an SAE has these latents.

    Raises:
        ProbeError: for a number that is none of its latents.
    """
    size = int(sae.cfg.d_sae)
    if wrong := [each for each in latents if not 0 <= each < size]:
        raise ProbeError(f"the SAE has no latent {wrong[0]}; its numbers are 0 to {size - 1}")


def _as_input(sae: "SAE[Any]", state: State) -> State:
    """The state in the SAE's dtype.

    Raises:
        ProbeError: if its width is not the SAE's.
    """
    if state.shape[-1] != sae.cfg.d_in:
        raise ProbeError(f"the SAE has width {sae.cfg.d_in}, and the state {state.shape[-1]}: give another SAE or site")
    return state.to(sae.dtype)


def _with_latents(sae: "SAE[Any]", state: State, latents: Sequence[int], change: Any) -> State:
    """The state with some latents changed and everything else kept."""
    acts = sae.encode(_as_input(sae, state))
    norm = {name: vars(sae)[name] for name in ("ln_mu", "ln_std", "x_norm_coeff") if name in vars(sae)}
    wanted = acts.clone()
    wanted[..., list(latents)] = change(acts[..., list(latents)])
    before = sae.decode(acts)
    vars(sae).update(norm)  # an SAE that normalises each state forgets its norm when it decodes
    return state + (sae.decode(wanted) - before).to(state.dtype)


def ordinary_tokens(model: Model) -> Selection:
    """All tokens except special tokens, whose states are outliers that SAEs are not trained on."""
    return Tokens(window=(0, None)) - Tokens(ids=sorted(model.tokenizer.all_special_ids))


def outliers(state: State, texts: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
    """Find tokens whose norm exceeds :data:`OUTLIER` times the median of their text, mostly attention sinks.

    Args:
        texts: number of the text that each token belongs to; negative at padding.

    Returns:
        True at outliers; never at padding.
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
    """Insert an SAE for the forward passes inside a block; afterwards the model is as before, bit for bit.

    Args:
        insertion: the change of the state.
        site: where it is applied; None takes the SAE's own site.
        tokens: the tokens that it is applied to; None takes :func:`ordinary_tokens`. A boolean mask fits passes of its
            own shape only, which may have any attention mask.
        texts: with a mask, the number of the text that each token belongs to, negative at padding. :func:`outliers` of
            each text are then left unchanged: SAEs are not trained on them, and replacing an attention sink breaks
            every later token.

    Raises:
        ProbeError: if the SAE is no plain one, the model has no such site, or its width there differs from the SAE's.
    """
    where = check_sae(insertion.sae, model, None if site is None else Site.parse(site))
    if isinstance(tokens, Tensor):

        def there(state: Tensor) -> Tensor:
            mask = tokens if texts is None else tokens & ~outliers(state, texts)
            return torch.where(mask[..., None], insertion(state), state)

        change = Apply(there)
    else:
        change = Apply(insertion, tokens=ordinary_tokens(model) if tokens is None else tokens)
    # A stopped gradient stops at every token, also at those that are not changed.
    stop = [] if getattr(insertion, "through", True) else [Apply(Tensor.detach)]
    with edit(model, {where: [*stop, change]}):
        yield
