"""What an adapter is trained for: the predictions or states that are its target, and what is inserted in training.

Resa (2506.09967) puts a frozen SAE's reconstruction in place of a block's output and trains the adapter to repair the
damage; the SAE is removed afterwards. The loss is that of Chen et al. (2501.19406), who keep the SAE. Resa's published
code stops the gradient at the SAE, so only the layers above it learn. The other objectives have a target of their own:
a raised latent, another model's predictions, or another model's latents.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from probe.adapters.sae.folders import random_sae, shuffled_decoder
from probe.adapters.sae.insertion import Boost, Insertion, Noise, Replace, check_latents, inserted
from probe.adapters.sae.plain import site_of
from probe.adapters.training.config import INSERTING, INSERTS, OBJECTIVES, ON_LATENTS
from probe.adapters.training.packing import Packed
from probe.config import nearest
from probe.errors import ProbeError
from probe.hooks import Head, TrainingCost, capture, cross_entropy, score_logits
from probe.models import Model, Site

if TYPE_CHECKING:
    from sae_lens import SAE


@dataclass(frozen=True, repr=False)
class Objective:
    """A loss over packed texts.

    Args:
        name: one of :data:`OBJECTIVES`.
        sae: the frozen SAE; None for ``ce`` and ``source-distil``.
        insert: one of :data:`INSERTS`; only ``resa`` and ``chen`` insert anything.
        through: whether gradients pass through what is inserted.
        latents: the latents that are raised (``steer-distil``) or compared (``feature-match``).
        value: the activation to which they are raised, in the SAE's units.
        source: the other model, for ``source-distil`` and ``feature-match``.
        match: weight of the state at the SAE's site in ``steer-distil``, beside the predictions: its squared distance
            from the steered state, relative to that state. With predictions alone an adapter finds another way to
            them, and ablating the latents does not undo the effect.
        seed: seeds random and shuffled SAEs.

    Raises:
        ProbeError: for an unknown name, or if the objective needs something that is missing.
    """

    name: str
    sae: "SAE[Any] | None" = None
    insert: str = "sae"
    _: KW_ONLY
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
            "latents": not self.latents and self.name in ON_LATENTS,
            "a source model": self.source is None and self.name == "source-distil",
        }
        if self.match < 0:
            raise ProbeError(f"match is {self.match}; it must be at least 0")
        if lacks := [what for what, is_missing in missing.items() if is_missing]:
            raise ProbeError(f"the objective {self.name} needs {' and '.join(lacks)}")
        if self.sae is not None:
            site_of(self.sae)
            check_latents(self.sae, self.latents)
            if self.name == "feature-match" and not hasattr(self.sae, "b_enc"):
                kind = self.sae.cfg.architecture()
                raise ProbeError(f"feature-match compares latents before their threshold, and a {kind} SAE has two")

    def __repr__(self) -> str:
        insert = f", insert={self.insert!r}" if self.name in INSERTING else ""
        return f"Objective({self.name!r}{'' if self.site is None else f', SAE at {self.site}'}{insert})"

    @property
    def site(self) -> Site | None:
        """The site of the SAE; None without an SAE."""
        return None if self.sae is None else site_of(self.sae)

    @property
    def inserts(self) -> Insertion | None:
        """What is inserted while the adapter is trained; None if nothing is."""
        if self.name not in INSERTING or self.insert == "nothing" or self.sae is None:
            return None
        if self.insert == "noise":
            return Noise(self.sae, through=self.through)  # new noise at every step
        changed = {"random-sae": random_sae, "shuffled-decoder": shuffled_decoder}.get(self.insert)
        return Replace(self.sae if changed is None else changed(self.sae, self.seed), self.through)

    def cost(self, model: Model) -> TrainingCost:
        """The bytes that a pass of the objective takes.

        Args:
            model: the base model, without an adapter.
        """
        # An inserted SAE keeps its latents before and after their activation function, and both gradients.
        latents = 16 * int(self.sae.cfg.d_sae) if self.sae is not None and self.name in (*INSERTING, *ON_LATENTS) else 0
        return TrainingCost.of(model, lora=True, extra=latents, models=1 if self.name == "ce" else 2)

    def losses(
        self, model: Model, plain: Callable[[], AbstractContextManager[None]], batch: Packed, chunk: int | None = None
    ) -> Float[Tensor, " counted"]:
        """The loss at each token that counts.

        Args:
            model: the model with the adapter on.
            plain: gives a context in which the adapter is off.
            batch: packed texts.
            chunk: the number of places whose logits may be held at once; None for all.

        Returns:
            One value for each counted token: nats, or squared error for ``feature-match``.
        """
        with self.scoring(model, plain, batch, chunk) as losses:
            return losses

    @contextmanager
    def scoring(
        self, model: Model, plain: Callable[[], AbstractContextManager[None]], batch: Packed, chunk: int | None = None
    ) -> Iterator[Float[Tensor, " counted"]]:
        """Give :meth:`losses` to a block in which what is inserted stays, for the backward pass of checkpointed blocks.

        Args:
            model, plain, batch, chunk: see :meth:`losses`.
        """
        size = batch.ids.numel() if chunk is None else chunk
        if self.name == "feature-match":
            yield self._feature_losses(model, plain, batch)
        elif self.name == "steer-distil":
            yield self._steered_losses(model, plain, batch, size)
        elif self.name == "ce":
            yield score_logits(
                cross_entropy, [(Head(model), batch.states(model))], batch.counts, batch.targets, size=size
            )
        else:
            teacher = self._teacher(model, plain, batch)
            with with_insertion(model, self.inserts, batch):
                student = Head(model), batch.states(model)
                yield score_logits(kl, [teacher, student], batch.counts, size=size)

    @torch.no_grad()
    def _teacher(
        self, model: Model, plain: Callable[[], AbstractContextManager[None]], batch: Packed
    ) -> tuple[Head, Tensor]:
        if self.name == "source-distil":
            assert self.source is not None
            return Head(self.source), batch.states(self.source)
        with plain():
            return Head(model), batch.states(model)

    @property
    def _boost(self) -> Boost | None:
        if self.name not in ON_LATENTS or self.sae is None or self.source is not None:
            return None
        return Boost(self.sae, self.latents, self.value)

    def _steered_losses(
        self, model: Model, plain: Callable[[], AbstractContextManager[None]], batch: Packed, size: int
    ) -> Float[Tensor, " counted"]:
        site = self.site
        assert site is not None

        def read() -> tuple[Tensor, Tensor]:
            with capture(model, site, grad=True, stop=False) as acts:
                states = batch.states(model)
            return acts[site][batch.counts].float(), states

        with torch.no_grad(), plain(), with_insertion(model, self._boost, batch):
            wanted, teacher = read()
        state, student = read()
        apart = (state - wanted).square().sum(-1) / wanted.square().sum(-1)
        head = Head(model)
        return score_logits(kl, [(head, teacher), (head, student)], batch.counts, size=size) + self.match * apart

    def _feature_losses(
        self, model: Model, plain: Callable[[], AbstractContextManager[None]], batch: Packed
    ) -> Float[Tensor, " counted"]:
        with torch.no_grad():
            teacher, off = (self.source, nullcontext) if self.source is not None else (model, plain)
            with off(), with_insertion(teacher, self._boost, batch):
                wanted = self._latents(teacher, batch)
        return (self._latents(model, batch) - wanted).square().mean(-1)

    def _latents(self, model: Model, batch: Packed) -> Float[Tensor, "counted latents"]:
        """The chosen latents before their activation function, so that a silent latent has a gradient, too."""
        sae: Any = self.sae
        some, site = list(self.latents), self.site
        assert site is not None
        with capture(model, site, grad=True) as acts:
            batch.run(model)
        state = acts[site][batch.counts].float().to(sae.dtype)
        found = sae.process_sae_in(state) @ sae.W_enc[:, some] + sae.b_enc[some]
        rescaled = getattr(sae.cfg, "rescale_acts_by_decoder_norm", False)
        return found * sae.W_dec[some].norm(dim=-1) if rescaled else found


def kl(teacher: Float[Tensor, "*n vocab"], student: Float[Tensor, "*n other"]) -> Float[Tensor, "*n"]:
    """KL(teacher ‖ student) at each place, in nats.

    Args:
        teacher: logits.
        student: logits; where one of the two has more columns (padded embeddings), the excess is cut off.
    """
    vocab = min(teacher.shape[-1], student.shape[-1])
    log_p, log_q = (logits[..., :vocab].float().log_softmax(-1) for logits in (teacher, student))
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@contextmanager
def with_insertion(model: Model, insertion: Insertion | None, batch: Packed) -> Iterator[None]:
    """Insert something at the tokens of packed texts that are neither special nor outliers; None inserts nothing."""
    if insertion is None:
        yield
        return
    special = torch.tensor(sorted(model.tokenizer.all_special_ids), device=batch.ids.device)
    with inserted(model, insertion, tokens=~torch.isin(batch.ids, special), texts=batch.segment):
        yield
