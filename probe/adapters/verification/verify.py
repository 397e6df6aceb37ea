"""Verifies one adapter: how far it reaches, which latents it moves, whether they carry its effect, and what it damages.

Every figure is a mean over texts with a bootstrap interval over them; comparisons are paired by text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import false_discovery_control, wilcoxon
from torch import Tensor

from probe.adapters.exports.attach import attached, switched_off
from probe.adapters.exports.lora import block_of, check_fits, read_lora
from probe.adapters.sae.insertion import Ablate, Boost, Replace, inserted
from probe.adapters.training.packing import Example
from probe.adapters.verification.passes import TextPasses
from probe.models import Model, weight_of
from probe.statistics import Interval, mean_interval

if TYPE_CHECKING:
    from sae_lens import SAE

#: Linear layers that write to the residual stream.
_WRITERS = ("o_proj", "down_proj", "c_proj", "dense", "dense_4h_to_h")
#: False discovery rate among the latents that are reported as moved.
_FDR = 0.05
LEAST_TEXTS = 6
"""With fewer texts the Wilcoxon test cannot reach 5 %."""
OFF, ON = (False, None), (True, None)
"""The model without the adapter, and with it."""


@dataclass(frozen=True, repr=False)
class Verification:
    """The report on one adapter; KL is in nats a token.

    The key ``claimed`` holds the measures of the claimed latents. The key ``random`` holds those of the control, as
    many random latents: each did not move and is about as active as the claimed latent that it is matched with. It is
    missing if there are not enough such latents.

    Attributes:
        reach: for each block, the norm of what is added to its weights over the norm of the weights.
        site_changed: relative change of the state at the SAE's site. It is zero where the adapter acts only above the
            site; the SAE's latents then cannot explain its effect on the same text.
        moved: latents whose mean activation changes (Wilcoxon test over texts, 5 % false discovery rate), those with
            the largest change first. Fewer than :data:`LEAST_TEXTS` texts cannot show that one moved.
        claimed: the latents through which the adapter is claimed to work: those given, or those that moved most.
        effect: KL(base ‖ adapter).
        necessity: the share of the effect that disappears when the latents are ablated in both models.
        sufficiency: the share of the effect that the base model shows when the latents are raised to at least their
            mean under the adapter.
        alignment: the mean, over the latents, of the largest |cosine| between their decoder rows and the directions
            that the adapter writes.
        damage: for each set of texts, KL(base ‖ adapter) and the change of cross-entropy.
        insertion: KL(base ‖ base with the SAE inserted), the same with SAE and adapter, and with the adapter alone.
        behaviour: the count of a behaviour in rollouts of the ``base`` model and of the ``adapter``, and the change
            (``moved``); the same with latents ablated in both models; and the share of the change that this ablation
            takes back (``taken back``). Empty if nothing was counted.
        texts: the number of texts that everything but the damage to other texts is measured on; None if unknown.
    """

    reach: dict[int, float]
    site_changed: Interval
    moved: list[int]
    claimed: list[int]
    effect: Interval
    necessity: dict[str, Interval]
    sufficiency: dict[str, Interval]
    alignment: dict[str, float]
    damage: dict[str, dict[str, Interval]]
    insertion: dict[str, Interval]
    behaviour: dict[str, Interval]
    texts: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: intervals as ``value`` and ``ci``; None for a share of nothing."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    def __repr__(self) -> str:
        moved = (
            f"{len(self.moved)} latents moved" if self.texts is None or self.texts >= LEAST_TEXTS else "too few texts"
        )
        return f"Verification(effect {self.effect} nats a token, {moved})"


def verify(
    model: Model,
    folder: str | Path,
    sae: "SAE[Any]",
    texts: Sequence[Example],
    *,
    general: Sequence[Example] = (),
    latents: Sequence[int] = (),
    most: int = 8,
    counted: Callable[[], Sequence[float]] | None = None,
    foreign: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> Verification:
    """Measure what an adapter does, on texts that it was not trained on.

    Args:
        model: the base model.
        folder: the adapter.
        sae: the SAE by whose latents the effect is explained.
        texts: texts of the kind that it was trained on.
        general: texts of another kind, on which it should change nothing.
        latents: the latents through which it is claimed to work; empty takes up to ``most`` of those that moved.
        most: the maximum number of latents that are claimed where none are given.
        counted: rolls the model out in its current state and counts a behaviour in each rollout, with the same problems
            in the same order in every call; None counts nothing.
        foreign: allow another model of the same shapes.
        seed: seeds the random latents and the intervals.
        progress: show a bar for each round through the texts.

    Raises:
        ProbeError: if the adapter does not fit the model.
    """
    folder, over_texts = Path(folder), partial(_over_texts, seed=seed)
    reached = reach(model, folder)
    with attached(model, folder, foreign=foreign):
        passes = TextPasses(model, progress=progress)
        plain, on = passes.means(texts, sae, adapted=False), passes.means(texts, sae, adapted=True)
        moved = _moved(plain.latents, on.latents)
        claimed = list(latents) or moved[:most] or plain.latents.mean(0).argsort(descending=True)[:most].tolist()
        random = _random_like(on.latents, claimed, moved, seed)
        sets = {"claimed": claimed} | ({"random": random} if random else {})
        effect, backwards = passes.kl(texts, OFF, ON), passes.kl(texts, ON, OFF)
        necessity, sufficiency = {}, {}
        for name, some in sets.items():
            ablated = Ablate(sae, tuple(some))
            left = passes.kl(texts, (False, ablated), (True, ablated))
            necessity[name] = over_texts(effect - left, effect)
            raised = Boost(sae, tuple(some), tuple(on.latents.mean(0)[some].tolist()))
            sufficiency[name] = over_texts(backwards - passes.kl(texts, ON, (False, raised)), backwards)
        replaced = Replace(sae, through=False)
        return Verification(
            texts=len(texts),
            reach=reached,
            site_changed=over_texts((on.states - plain.states).norm(dim=1) / plain.states.norm(dim=1)),
            moved=moved,
            claimed=claimed,
            effect=over_texts(effect),
            necessity=necessity,
            sufficiency=sufficiency,
            alignment={name: _alignment(folder, sae, some) for name, some in sets.items()},
            damage={
                name: {
                    "kl": over_texts(effect if name == "like" else passes.kl(some, OFF, ON)),
                    "ce": over_texts(passes.ce(some, adapted=True) - passes.ce(some, adapted=False)),
                }
                for name, some in {"like": texts, "general": general}.items()
                if some
            },
            insertion={
                "sae": over_texts(passes.kl(texts, OFF, (False, replaced))),
                "sae and adapter": over_texts(passes.kl(texts, OFF, (True, replaced))),
                "adapter": over_texts(effect),
            },
            behaviour={} if counted is None else _behaviour(model, sae, sets, counted, seed),
        )


def _behaviour(
    model: Model, sae: "SAE[Any]", sets: dict[str, list[int]], counted: Callable[[], Sequence[float]], seed: int
) -> dict[str, Interval]:
    def both() -> tuple[Tensor, Tensor]:
        with switched_off(model):
            base = torch.tensor(counted(), dtype=torch.float64)
        return base, torch.tensor(counted(), dtype=torch.float64)

    base, on = both()
    counts, shares = {"base": base, "adapter": on, "moved": on - base}, {}
    for name, some in sets.items():
        with inserted(model, Ablate(sae, tuple(some))):
            counts[f"base without {name}"], counts[f"adapter without {name}"] = without = both()
        left = without[1] - without[0]
        shares[f"taken back, {name}"] = _over_texts(on - base - left, on - base, seed=seed)
    return {name: _over_texts(values, seed=seed) for name, values in counts.items()} | shares


def _plain(value: Any) -> Any:
    if isinstance(value, Interval):
        return value.to_dict()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _over_texts(values: Tensor, whole: Tensor | None = None, *, seed: int) -> Interval:
    return mean_interval(values.numpy(), None if whole is None else whole.numpy(), seed=seed)


def _moved(plain: Tensor, on: Tensor) -> list[int]:
    change = (on - plain).double()
    some = [k for k in range(change.shape[1]) if change[:, k].abs().max() > 0]
    if not some or len(change) < LEAST_TEXTS:
        return []
    tests: list[Any] = [wilcoxon(change[:, k].numpy()) for k in some]
    p = np.array([test.pvalue for test in tests])
    found = [k for k, q in zip(some, false_discovery_control(p), strict=True) if q < _FDR]
    return sorted(found, key=lambda k: -abs(float(change[:, k].mean())))


def _random_like(acts: Tensor, claimed: Sequence[int], moved: Sequence[int], seed: int) -> list[int]:
    """For each claimed latent a random one of the ten unmoved latents with the nearest activation; [] if too few."""
    generator = torch.Generator().manual_seed(seed)
    often, taken = acts.mean(0), {*claimed, *moved}
    found: list[int] = []
    for latent in claimed:
        near = (often - often[latent]).abs().argsort().tolist()
        free = [k for k in near if k not in taken][:10]
        if not free:
            return []
        found.append(free[int(torch.randint(len(free), (), generator=generator))])
        taken.add(found[-1])
    return found


def reach(model: Model, folder: str | Path) -> dict[int, float]:
    """How far an adapter reaches: for each block, the norm of what it adds to the weights over their norm.

    Args:
        model: the base model.
        folder: the adapter; what it adds outside of the blocks, as to the unembedding, is left out.

    Raises:
        ProbeError: if the folder holds no plain LoRA, or it does not fit the model.
    """
    adapter = read_lora(folder)
    check_fits(model, adapter, foreign=True)
    added, there = dict.fromkeys(range(model.n_layers), 0.0), dict.fromkeys(range(model.n_layers), 0.0)
    for name, part in adapter.parts.items():
        if (block := block_of(name)) is None:
            continue
        a, b = part.folded
        added[block] += float((b @ a).square().sum())
        there[block] += float(weight_of(model.hf.get_submodule(name)).float().square().sum())
    return {block: (added[block] / there[block]) ** 0.5 if there[block] else 0.0 for block in added}


def _alignment(folder: Path, sae: "SAE[Any]", latents: Sequence[int]) -> float:
    width, columns = sae.W_dec.shape[1], []
    for name, part in read_lora(folder).parts.items():
        b = part.folded[1]
        if b.shape[0] == width and name.rpartition(".")[-1] in _WRITERS:
            columns.append(F.normalize(b, dim=0).T)
    if not columns:
        return float("nan")
    rows = F.normalize(sae.W_dec[list(latents)].float().cpu(), dim=1)
    return float((rows @ torch.cat(columns).T).abs().max(1).values.mean())
