"""Teacher forcing: one forward pass over text that is already written, aligned to the emitted tokens."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from probe.errors import ProbeError
from probe.hooks.checks import check_finite
from probe.hooks.head import Head, Headless, headless
from probe.hooks.reading import as_sites, capture
from probe.hooks.upper import causal_masks
from probe.models import Model, Site, Sizes, halving

_MOST_LOGITS = 1 << 27
"""The most logits that are computed at a time. More are no faster."""


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

    def take(self, rows: slice | Int[Tensor, " some"]) -> "Forced":
        """Return some rows, as wide as they are here."""
        return Forced(self.ids[rows], self.valid[rows], self.predicts[rows], self.emitted[rows])


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

    def __init__(
        self, model: Model, forced: Forced, whole: Mapping[str, Tensor], states: Tensor | None, logits: Tensor | None
    ) -> None:
        self.whole = whole
        self._model, self._forced = model, forced
        self._states, self._logits = states, logits
        self._head = None if states is None else Head(model)
        self._rows = torch.arange(len(forced.ids), device=forced.ids.device)[:, None]

    @property
    def logits(self) -> Float[Tensor, "rows emitted vocab"]:
        """All logits that predict the emitted tokens; zero where ``emitted`` is False.

        They are the largest tensor that a pass can give. :meth:`over_logits` never holds all of them.

        Raises:
            ProbeError: if the pass was run without logits, or a logit is not finite.
        """
        return self.over_logits(lambda logits, _: logits)

    @torch.no_grad()
    def over_logits(
        self,
        read: Callable[[Float[Tensor, "some vocab"], Int[Tensor, " some"]], Tensor],
    ) -> Shaped[Tensor, "rows emitted *axes"]:
        """Compute something from the logits that predict each emitted token, of some tokens at a time.

        Args:
            read: called with logits and with the tokens that were emitted there; gives one result for each.

        Returns:
            The results; zero where ``emitted`` is False.

        Raises:
            ProbeError: if the pass was run without logits, or a logit is not finite.
        """
        found = torch.cat(list(itertools.starmap(read, self.in_chunks())))  # which lets go of a chunk before the next
        whole = found.new_zeros(*self._forced.emitted.shape, *found.shape[1:])
        whole[self._forced.emitted.to(found.device)] = found
        return whole

    @property
    def chunk(self) -> int:
        """The number of tokens whose logits fit the model's budget, with two copies of them in float32."""
        assert self._logits is not None
        return max(1, min(_MOST_LOGITS, self._model.budget // 16) // self._logits.shape[-1])

    def in_chunks(self, size: int | None = None) -> Iterator[tuple[Float[Tensor, "some vocab"], Int[Tensor, " some"]]]:
        """Go through the logits that predict the emitted tokens, row after row.

        Args:
            size: the number of tokens at a time; None takes what fits the model's budget.

        Yields:
            Logits, and the tokens that were emitted there.

        Raises:
            ProbeError: if the pass was run without logits, or a logit is not finite.
        """
        if self._logits is None:
            raise ProbeError("this pass was run without logits; call forced_pass(..., logits=True)")
        rows, emitted = self._forced.emitted.nonzero(as_tuple=True)
        columns, tokens = (
            self._forced.predicts[rows, emitted],
            self._forced.ids[rows, self._forced.columns[rows, emitted]],
        )
        some = size or self.chunk
        for row, column, token in zip(rows.split(some), columns.split(some), tokens.split(some), strict=True):
            logits = self._at(row, column)
            # Those of the emitted tokens tell: one bad number in the residual stream spoils all logits of a token.
            told = logits.gather(-1, token.to(logits.device)[:, None])
            check_finite(told, "a logit in a forced pass", self._model)
            yield logits, token.to(logits.device)
            del logits  # before the next chunk

    @torch.no_grad()
    def _at(self, rows: Int[Tensor, " some"], columns: Int[Tensor, " some"]) -> Float[Tensor, "some vocab"]:
        """The logits at some columns."""
        assert self._logits is not None
        if self._head is None or self._states is None:
            return self._logits[rows, columns]
        return self._head(self._states[rows, columns][None])[0]

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
    kept = Headless()
    with ExitStack() as reading:
        acts = reading.enter_context(capture(model, asked, stop=not logits)) if asked else {}
        if logits:
            kept = reading.enter_context(headless(model))
        out = model.hf(
            input_ids=forced.ids,
            attention_mask=causal_masks(model, forced.valid, forced.ids.shape[1]),
            position_ids=forced.positions,
            use_cache=False,
        )
    for site in asked:
        check_finite(acts[str(site)], f"a state at {site} in a forced pass", model)
    if not logits:
        return ForcedPass(model, forced, acts, None, None)
    rows, emitted = forced.emitted.nonzero(as_tuple=True)
    last = out.logits if kept.states is None else kept.states
    check_finite(last[rows, forced.predicts[rows, emitted]], "a logit in a forced pass", model)
    return ForcedPass(model, forced, acts, kept.states, out.logits)


def in_rows(
    model: Model, forced: Forced, work: Callable[[Forced], tuple[Tensor, ...]], *, what: str, sites: int = 1
) -> tuple[Tensor, ...]:
    """Do work on some rows of a batch at a time, as many as fit the model's budget, and fewer if memory runs out.

    Args:
        forced: the batch.
        work: called with some rows, which are as wide as the batch; gives tensors that go through these rows in order.
        what: names the work in messages.
        sites: the number of sites that the work reads.

    Returns:
        The tensors of all rows, joined.

    Raises:
        ProbeError: if memory runs out for the fewest rows that are tried.
    """
    rows = len(forced.ids)

    def run(size: int) -> tuple[Tensor, ...]:
        if size >= rows:
            return work(forced)
        parts = [work(forced.take(slice(start, start + size))) for start in range(0, rows, size)]
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))

    fits = model.budget // row_bytes(model, forced.ids.shape[1], sites)
    return halving(run, max(1, min(rows, fits)), device=model.device, what=what)


def row_bytes(model: Model, columns: int, sites: int = 1) -> int:
    """Estimate the bytes that a pass without gradients takes for a text, besides its logits.

    Args:
        columns: the number of tokens of the text.
        sites: the number of sites that are read.
    """
    sizes, size = Sizes.of(model.hf.config), model.dtype.itemsize
    # What is alive in a block, in its MLP, and what is read: whole, and its chosen tokens in float32.
    block = size * (8 * model.d_model + 3 * sizes.d_mlp) + 4 * sizes.scanned
    states = columns * (block + sites * (size + 4) * model.d_model)
    masks = columns**2 * (size * len(model.mask_windows) + 3)
    if (
        model.hf.config._attn_implementation == "eager"
    ):  # it forms the pattern of every head, and its softmax in float32
        masks += columns**2 * sizes.heads * (2 * size + 4)
    return states + masks
