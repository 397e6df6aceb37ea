"""What an adapter is trained for: whose predictions it must reach, and what is in its way while it learns.

Resa (2506.09967) puts a frozen SAE's reconstruction in place of a block's output and has the adapter make up for the
damage (Chen et al., 2501.19406, from whom the loss is, keep the SAE afterwards). Its published code lets no gradient
cross the SAE, so that only layers above it learn. The others say what they want: a named behaviour, another model's
predictions, or chosen latents.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from probe.adapters.sae.folders import random_sae, shuffled_decoder, site_of
from probe.adapters.sae.insertion import Boost, Insertion, Noise, Replace, inserted
from probe.adapters.training.packing import Packed
from probe.config import nearest
from probe.errors import ProbeError
from probe.hooks import capture
from probe.models import Model, Site

if TYPE_CHECKING:
    from sae_lens import SAE

#: What each objective wants.
OBJECTIVES = {
    "resa": "the base model's own predictions, with an SAE's reconstruction in the way that is taken out afterwards",
    "chen": "the same, and the SAE stays",
    "steer-distil": "the predictions of the base model with chosen latents raised, and its state at the SAE's site",
    "source-distil": "another model's predictions",
    "feature-match": "another model's latents, or the base model's own raised, at the SAE's site",
    "ce": "the texts themselves",
}
#: What stands where the SAE would, for the objectives that insert one; the first is the real thing.
INSERTS = ("sae", "noise", "random-sae", "shuffled-decoder", "nothing")
_INSERTING = ("resa", "chen")


@dataclass(frozen=True)
class Objective:
    """A loss over packed texts.

    Args:
        name: one of :data:`OBJECTIVES`.
        sae: frozen; None for those that need none.
        insert: one of :data:`INSERTS`.
        through: whether gradients cross what is inserted.
        latents, value: which latents are raised to what; of feature-match, which are compared.
        source: the other model.
        match: of steer-distil, how much the state at the SAE's site counts beside the predictions: its squared distance
            from the steered state, relative to that state. With predictions alone an adapter finds other ways to them,
            and ablating the latents takes nothing back.
        seed: draws random and shuffled SAEs.

    Raises:
        ProbeError: for an unknown name, or where something is missing.
    """

    name: str
    sae: "SAE[Any] | None" = None
    insert: str = "sae"
    through: bool = True
    latents: tuple[int, ...] = ()
    value: float = 0.0
    source: Model | None = None
    match: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for what, said, known in (("objective", self.name, OBJECTIVES), ("insert", self.insert, INSERTS)):
            if said not in known:
                raise ProbeError(f"there is no {what} {said!r}; {nearest(said, known)} (of: {', '.join(known)})")
        missing = {
            "an SAE": self.sae is None and self.name not in ("ce", "source-distil"),
            "latents": not self.latents and self.name in ("steer-distil", "feature-match"),
            "a source model": self.source is None and self.name == "source-distil",
        }
        if self.match < 0:
            raise ProbeError(f"match is {self.match}; it must be at least 0")
        if lacks := [what for what, is_missing in missing.items() if is_missing]:
            raise ProbeError(f"the objective {self.name} needs {' and '.join(lacks)}")

    @property
    def site(self) -> Site | None:
        """Where the SAE is."""
        return None if self.sae is None else site_of(self.sae)

    @property
    def inserts(self) -> Insertion | None:
        """What is in the student's way."""
        if self.name not in _INSERTING or self.insert == "nothing" or self.sae is None:
            return None
        if self.insert == "noise":
            return Noise(self.sae, through=self.through)  # another at every step
        changed = {"random-sae": random_sae, "shuffled-decoder": shuffled_decoder}.get(self.insert)
        return Replace(self.sae if changed is None else changed(self.sae, self.seed), self.through)

    def losses(self, model: Model, plain: Callable[[], AbstractContextManager[None]], batch: Packed) -> Tensor:
        """The loss of each token that counts, ``[counted]``, in nats (of feature-match, squared error).

        Args:
            model: with the adapter on.
            plain: takes the adapter off for a block.
        """
        if self.name == "ce":
            return F.cross_entropy(batch.logits(model), batch.targets, reduction="none")
        if self.name == "feature-match":
            return self._feature_losses(model, plain, batch)
        if self.name == "steer-distil":
            return self._steered_losses(model, plain, batch)
        teacher = self._teacher(model, plain, batch)
        with with_insertion(model, self.inserts, batch):
            return kl(teacher, batch.logits(model))

    @torch.no_grad()
    def _teacher(self, model: Model, plain: Callable[[], AbstractContextManager[None]], batch: Packed) -> Tensor:
        if self.name == "source-distil":
            assert self.source is not None
            return batch.logits(self.source)
        with plain():
            return batch.logits(model)

    @property
    def _boost(self) -> Boost | None:
        if self.name not in ("steer-distil", "feature-match") or self.sae is None or self.source is not None:
            return None
        return Boost(self.sae, self.latents, self.value)

    def _steered_losses(
        self, model: Model, plain: Callable[[], AbstractContextManager[None]], batch: Packed
    ) -> Float[Tensor, " counted"]:
        with torch.no_grad(), plain(), with_insertion(model, self._boost, batch):
            wanted, teacher = self._state_and_logits(model, batch)
        state, logits = self._state_and_logits(model, batch)
        apart = (state - wanted).square().sum(-1) / wanted.square().sum(-1)
        return kl(teacher, logits) + self.match * apart

    def _state_and_logits(self, model: Model, batch: Packed) -> tuple[Tensor, Tensor]:
        """The state at the SAE's site, in float32, and the logits, at each place that counts."""
        site = site_of(self.sae) if self.sae is not None else None
        assert site is not None
        with capture(model, site, grad=True, stop=False) as acts:
            logits = batch.logits(model)
        return acts[site][batch.counts].float(), logits

    def _feature_losses(
        self, model: Model, plain: Callable[[], AbstractContextManager[None]], batch: Packed
    ) -> Float[Tensor, " counted"]:
        with torch.no_grad():
            teacher, off = (self.source, nullcontext) if self.source is not None else (model, plain)
            with off(), with_insertion(teacher, self._boost, batch):
                wanted = self._latents(teacher, batch)
        return (self._latents(model, batch) - wanted).square().mean(-1)

    def _latents(self, model: Model, batch: Packed) -> Float[Tensor, "counted latents"]:
        """Before their activation, so that one which is silent can be told to rise."""
        sae: Any = self.sae
        some = list(self.latents)
        state = self._state_and_logits(model, batch)[0].to(sae.dtype)
        return sae.process_sae_in(state) @ sae.W_enc[:, some] + sae.b_enc[some]


def kl(teacher: Float[Tensor, "*n vocab"], student: Float[Tensor, "*n other"]) -> Float[Tensor, "*n"]:
    """KL of the student's distribution from the teacher's, in nats; embeddings may be padded differently."""
    vocab = min(teacher.shape[-1], student.shape[-1])
    log_p, log_q = (logits[..., :vocab].float().log_softmax(-1) for logits in (teacher, student))
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@contextmanager
def with_insertion(model: Model, insertion: Insertion | None, batch: Packed) -> Iterator[None]:
    """Something inserted at the tokens of packed texts that are neither special nor outliers, or nothing."""
    if insertion is None:
        yield
        return
    special = torch.tensor(sorted(model.tokenizer.all_special_ids), device=batch.ids.device)
    with inserted(model, insertion, tokens=~torch.isin(batch.ids, special), texts=batch.segment):
        yield
