"""Teacher forcing: one forward pass over text that is already written, aligned to the emitted tokens."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probe.errors import ProbeError
from probe.hooks.checks import check_finite
from probe.hooks.reading import as_sites, capture
from probe.hooks.upper import causal_masks
from probe.models import Model, Site


@dataclass(frozen=True)
class Forced:
    """A right-padded batch of prompts, each followed by its emitted tokens.

    Attributes:
        ids: token ids, ``[rows, pos]``.
        valid: False at padding, ``[rows, pos]``.
        predicts: ``predicts[r, j]`` is the column whose logits predict emitted token j of row r, ``[rows, emitted]``.
        emitted: False beyond the end of a row's emitted tokens, ``[rows, emitted]``.
    """

    ids: Int[Tensor, "rows pos"]
    valid: Bool[Tensor, "rows pos"]
    predicts: Int[Tensor, "rows emitted"]
    emitted: Bool[Tensor, "rows emitted"]

    @property
    def positions(self) -> Int[Tensor, "rows pos"]:
        """Position ids, counted from 0 without padding."""
        return self.valid.long().cumsum(1).sub(1).clamp_(min=0)

    @property
    def columns(self) -> Int[Tensor, "rows emitted"]:
        """The column of each emitted token, one after the column that predicts it."""
        return (self.predicts + 1).clamp(max=self.ids.shape[1] - 1)

    @property
    def tokens(self) -> Int[Tensor, "rows emitted"]:
        """The id of each emitted token; meaningless where ``emitted`` is False."""
        return self.ids.gather(1, self.columns)


def force(model: Model, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]) -> Forced:
    """Make one right-padded batch of prompts and emitted tokens on the model's device.

    Args:
        model: supplies the padding id and the device.
        prompts: token ids of the prompt of each row.
        texts: emitted token ids of each row.

    Raises:
        ProbeError: if a prompt is empty, because nothing would predict the first emitted token; or if the model cannot
            read an id, or so many tokens.
    """
    if not all(map(len, prompts)):
        raise ProbeError("a prompt has no token, so nothing predicts the first emitted token; give one with text")
    model.check_ids([*prompt, *text] for prompt, text in zip(prompts, texts, strict=True))
    width = max(len(prompt) + len(text) for prompt, text in zip(prompts, texts, strict=True))
    longest = max(len(text) for text in texts)
    ids = torch.full((len(texts), width), model.pad_id)
    valid = torch.zeros(len(texts), width, dtype=torch.bool)
    predicts = torch.zeros(len(texts), longest, dtype=torch.long)
    emitted = torch.zeros(len(texts), longest, dtype=torch.bool)
    for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        ids[row, : len(prompt) + len(text)] = torch.tensor([*prompt, *text])
        valid[row, : len(prompt) + len(text)] = True
        predicts[row, : len(text)] = torch.arange(len(prompt) - 1, len(prompt) + len(text) - 1)
        emitted[row, : len(text)] = True
    return Forced(*(tensor.to(model.device) for tensor in (ids, valid, predicts, emitted)))


class ForcedPass:
    """The result of :func:`forced_pass`.

    Attributes:
        whole: the state at each site read, at every column of the batch, ``[rows, pos, ...]``.
    """

    def __init__(self, forced: Forced, whole: Mapping[str, Tensor], logits: Tensor | None) -> None:
        self.whole = whole
        self._forced, self._logits = forced, logits
        self._rows = torch.arange(len(forced.ids), device=forced.ids.device)[:, None]

    @property
    def logits(self) -> Float[Tensor, "rows emitted vocab"]:
        """The logits that predict each emitted token.

        Raises:
            ProbeError: if the pass was run without logits.
        """
        if self._logits is None:
            raise ProbeError("this pass was run without logits; call forced_pass(..., logits=True)")
        return self._logits

    def predicting(self, site: str | Site) -> Float[Tensor, "rows emitted *axes"]:
        """The state at the column that predicts each emitted token."""
        return self.whole[str(site)][self._rows, self._forced.predicts]

    def at_tokens(self, site: str | Site) -> Float[Tensor, "rows emitted *axes"]:
        """The state at the column of each emitted token itself."""
        return self.whole[str(site)][self._rows, self._forced.columns]

    def __repr__(self) -> str:
        rows, emitted = self._forced.emitted.shape
        return f"ForcedPass({rows} rows, {emitted} emitted tokens at most, sites: {', '.join(self.whole) or 'none'})"


@torch.no_grad()
def forced_pass(
    model: Model, forced: Forced, sites: str | Site | Iterable[str | Site] = (), *, logits: bool = True
) -> ForcedPass:
    """Run a model once over forced text, and read sites and logits.

    Args:
        forced: the batch, from :func:`force`.
        sites: sites to read, as in :func:`~probe.hooks.capture`.
        logits: whether logits are wanted; without them nothing above the deepest site is run.

    Raises:
        ProbeError: if a state that was read, or a logit, is not finite.
    """
    asked = as_sites(sites)
    with ExitStack() as reading:
        acts = reading.enter_context(capture(model, asked, stop=not logits)) if asked else {}
        out = model.hf(
            input_ids=forced.ids,
            attention_mask=causal_masks(model, forced.valid, forced.ids.shape[1]),
            position_ids=forced.positions,
            use_cache=False,
        )
    for site in asked:
        check_finite(acts[str(site)], f"a state at {site} in a forced pass", model)
    if not logits:
        return ForcedPass(forced, acts, None)
    rows = torch.arange(len(forced.ids), device=forced.ids.device)[:, None]
    found = out.logits[rows, forced.predicts]
    # Those of the emitted tokens tell: one bad number in the residual stream spoils all logits of a token.
    check_finite(found.gather(-1, forced.tokens[..., None]), "a logit in a forced pass", model)
    return ForcedPass(forced, acts, found)
