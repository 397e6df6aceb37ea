"""The model under check, the tokens it is checked on, and how far two results may differ."""

import copy
import itertools
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.errors import NotApplicable
from probe.hooks import cross_entropy, force, forced_pass, n_logits
from probe.models import Model
from probe.pipeline.check.checks import Check
from probe.pipeline.check.texts import Text, own_texts

_ROUNDING = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""How far two ways to compute the same logits or states may differ, relative to their size, by number format."""
_LENGTHS = (5, 24, 13)
_LONGEST_WINDOW = 1024
"""A sliding window longer than this is not filled, which would take too long."""


class Bench:
    """A model under check.

    Attributes:
        model: the model.
    """

    def __init__(self, model: Model, texts: Sequence[Text] | None = None) -> None:
        self.model = model
        self._texts = [self._short(text) for text in texts or own_texts(model)]

    @property
    def texts(self) -> list[Text]:
        """Texts that a trained model predicts.

        Raises:
            NotApplicable: if there are none.
        """
        if not self._texts:
            raise NotApplicable("the tokenizer has no tokens for the texts of this check; name some with --texts")
        return self._texts

    def _short(self, text: Text) -> Text:
        """A text with no more tokens than the model can read."""
        before, ids = text
        config: Any = self.model.hf.config.get_text_config()
        most = min(
            each
            for each in (self.model.longest_text, getattr(config, "max_position_embeddings", None), 1 << 20)
            if each
        )
        return before[-most // 2 :], ids[: max(1, most - min(len(before), most // 2))]

    @property
    def rounding(self) -> float:
        """How far two ways to compute the same may differ, see :func:`difference`."""
        return _ROUNDING.get(self.model.dtype, _ROUNDING[torch.float32])

    @cached_property
    def pool(self) -> list[int]:
        """Token ids of rows on which only the structure of a model is checked, in no order that means anything."""
        model = self.model
        special = {*model.tokenizer.all_special_ids, *model.eos_ids, model.pad_id}
        written = [i for i in itertools.chain(*(before + ids for before, ids in self._texts)) if i not in special]
        if len(set(written)) >= 16:  # text as the model knows it
            return written
        # Some models read ids that they cannot emit.
        ordinary = [i for i in range(min(model.n_embeddings, n_logits(model))) if i not in special] or [0]
        numbers = torch.Generator().manual_seed(0)
        return [ordinary[i] for i in torch.randint(len(ordinary), (256,), generator=numbers).tolist()]

    def row(self, length: int) -> list[int]:
        """A row of so many token ids."""
        pool = self.pool
        return [pool[i % len(pool)] for i in range(length)]

    @cached_property
    def rows(self) -> list[list[int]]:
        """A few rows of different lengths."""
        start = list(self.model.start_ids)
        return [[*start, *self.row(length)] for length in _LENGTHS]

    @property
    def windows(self) -> list[int]:
        """The sliding windows of the model's attention, the smallest first."""
        return sorted(window for window in self.model.mask_windows.values() if window is not None)

    @property
    def fillable_window(self) -> int | None:
        """The largest sliding window that a text here can be longer than; None if there is none."""
        return max((window for window in self.windows if window <= _LONGEST_WINDOW), default=None)

    @torch.no_grad()
    def plain(self, ids: Sequence[int]) -> Float[Tensor, "pos vocab"]:
        """The logits of a row, as the model alone computes them: one pass, no padding, no cache, no mask."""
        row = torch.tensor([list(ids)], device=self.model.device)
        return self.model.hf(input_ids=row, use_cache=False).logits[0]

    def losses(self, texts: Sequence[Text] | None = None) -> Float[Tensor, " tokens"]:
        """The loss of each token of the texts, in nats."""
        found = []
        for before, ids in self.texts if texts is None else texts:
            forced = force(self.model, [before], [ids])
            done = forced_pass(self.model, forced)
            found.append(done.over_logits(lambda logits, tokens: cross_entropy(logits.float(), tokens))[0])
        return torch.cat(found).double().cpu()

    @cached_property
    def own_losses(self) -> Float[Tensor, " tokens"]:
        """The losses of the model as it is."""
        return self.losses()

    @property
    def loss(self) -> float:
        """The mean loss of the model as it is, in nats for each token."""
        return float(self.own_losses.mean())

    @property
    def loss_limit(self) -> float:
        """The loss above which a model does not predict the texts: seven tenths of that of a uniform guess."""
        return 0.7 * float(torch.tensor(float(self.model.n_embeddings)).log())

    @property
    def predicts(self) -> bool:
        """Whether the model predicts the texts."""
        return self.loss <= self.loss_limit

    def copy_as(self, dtype: torch.dtype) -> Model:
        """A copy of the model in another number format.

        Raises:
            NotApplicable: if there is not enough memory for it, or the weights are quantised.
        """
        model = self.model
        if getattr(model.hf, "hf_quantizer", None) is not None:
            raise NotApplicable("the weights are quantised, so there is no other number format to compare with")
        size = sum(each.numel() for each in model.hf.parameters())
        need = size * max(dtype.itemsize, model.dtype.itemsize)
        if need > model.budget:
            raise NotApplicable(f"a copy of the weights needs {need / 1e9:.1f} GB, and not that much memory is free")
        twin: Any = copy.deepcopy(model.hf)
        return Model(twin.to(dtype), model.tokenizer, model.config, model.name)


@torch.no_grad()
def difference(found: Float[Tensor, "*tokens n"], wanted: Float[Tensor, "*tokens n"]) -> float:
    """How far two results differ: at the worst token, the length of their difference relative to that of ``wanted``.

    Not finite where either is not.
    """
    found, wanted = found.double().cpu(), wanted.double().cpu()
    # A shift of all logits changes nothing, and of states almost nothing is in their mean.
    found, wanted = found - found.mean(-1, keepdim=True), wanted - wanted.mean(-1, keepdim=True)
    far = (found - wanted).norm(dim=-1)
    size = wanted.norm(dim=-1)
    size = size.clamp(min=float(size.max()) * 1e-3 + 1e-30)
    worst = (far / size).max()
    return float(worst) if bool(worst.isfinite()) else float("inf")


def padded_left(rows: Sequence[Sequence[int]], pad: int) -> tuple[Int[Tensor, "rows pos"], Int[Tensor, "rows pos"]]:
    """Token ids padded on the left, and 1 where there is a token."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def judged(group: str, name: str, value: float, limit: float, good: str, bad: str) -> Check:
    """A check that passes if its value is not above the limit.

    Args:
        group, name, value, limit: as in :class:`Check`.
        good: what was found if it passes.
        bad: what was found if it fails, and what to do.
    """
    passed = value <= limit
    return Check(group, name, "passed" if passed else "failed", good if passed else bad, value, limit)
