"""What an adapter does: how far it reaches, which latents it moves, whether they carry it, and what it breaks.

Every figure is a mean over texts with a bootstrap interval over them; what is compared is paired text by text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import false_discovery_control, wilcoxon
from torch import Tensor

from probe.adapters.exports.attach import attached, lora_tensors, switched_off
from probe.adapters.exports.export import folded
from probe.adapters.sae.insertion import Ablate, Boost, Replace, inserted
from probe.adapters.training.packing import Example
from probe.adapters.verification.look import Look
from probe.files import read_json
from probe.models import Model
from probe.statistics import Interval, mean_interval

if TYPE_CHECKING:
    from sae_lens import SAE

#: Linear layers that write to the residual stream.
_WRITERS = ("o_proj", "down_proj", "c_proj", "dense", "dense_4h_to_h")
#: Share of false findings among the latents that are said to have moved.
_FDR = 0.05


@dataclass(frozen=True)
class Verification:
    """The report on one adapter; KL is in nats a token, of the second model from the first.

    Attributes:
        reach: per block, the length of what is added to its weights over the length of the weights.
        site_changed: relative change of the state at the SAE's site. Zero where the adapter sits above it alone: then
            nothing that it does can be a matter of that SAE's latents on the same text.
        moved: latents whose mean activation changes (Wilcoxon over texts, 5 % false discoveries), the most moved first.
        claimed: the latents that the adapter is said to work through: those given, or the most moved.
        effect: KL(base ‖ adapter).
        necessity: the share of the effect that is gone when the claimed latents are ablated in both models; and with as
            many drawn latents that did not move and are active as strongly, as far as there are such.
        sufficiency: the share of the effect that the base model shows when those latents are raised to at least
            their mean under the adapter; and with drawn ones.
        alignment: of the adapter's writing directions, the mean greatest |cosine| with the claimed decoder rows; and
            with drawn ones.
        damage: per set of texts, KL(base ‖ adapter) and the change of cross-entropy.
        insertion: KL from the base model with the SAE in place alone, with SAE and adapter, and of the adapter alone.
        behaviour: what was counted in rollouts of the ``base`` and of the ``adapter``, and how much that ``moved``; the
            same without the claimed latents and without drawn ones, in both models; and the share of the change that
            is ``taken back`` by ablating them. Empty if nothing was counted.
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

    def to_dict(self) -> dict[str, Any]:
        """For JSON: intervals as ``value`` and ``ci``, None for a share of nothing."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


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
    """Measure an adapter on texts that it was not trained on.

    Args:
        texts: like those that it was trained for.
        general: others, on which it should change nothing.
        latents: those that it is said to work through; without any, up to ``most`` of those moved.
        counted: rolls the model out as it is and counts a behaviour in each rollout, the same problems in the same
            order at every call.
        foreign: measure it on a model of the same shapes that is another one.
        seed: draws the controls and the intervals.
        progress: show a bar for each round through the texts.

    Raises:
        ProbeError: if the adapter is not for this model.
    """
    reached = reach(model, Path(folder))
    with attached(model, folder, foreign=foreign):
        look = Look(model, progress=progress)
        return _verify(look, sae, Path(folder), texts, general, latents, most, counted, reached, seed)


def _verify(
    look: Look,
    sae: "SAE[Any]",
    folder: Path,
    texts: Sequence[Example],
    general: Sequence[Example],
    latents: Sequence[int],
    most: int,
    counted: Callable[[], Sequence[float]] | None,
    reached: dict[int, float],
    seed: int,
) -> Verification:
    plain, on = look.acts(texts, sae, adapted=False), look.acts(texts, sae, adapted=True)
    moved = _moved(plain.latents, on.latents)
    claimed = list(latents) or moved[:most] or plain.latents.mean(0).argsort(descending=True)[:most].tolist()
    drawn = _drawn_like(on.latents, claimed, moved, seed)
    effect = look.kl(texts, (False, None), (True, None))
    necessity, sufficiency = {}, {}
    sets_of_latents = {"claimed": claimed} | ({"drawn": drawn} if drawn else {})
    for name, some in sets_of_latents.items():
        off = Ablate(sae, tuple(some))
        left = look.kl(texts, (False, off), (True, off))
        necessity[name] = _over_texts(effect - left, effect, seed=seed)
        raised = Boost(sae, tuple(some), tuple(on.latents.mean(0)[some].tolist()))
        reproduced = look.kl(texts, (True, None), (False, raised))
        backwards = look.kl(texts, (True, None), (False, None))
        sufficiency[name] = _over_texts(backwards - reproduced, backwards, seed=seed)
    replace = Replace(sae, through=False)
    sets = {"like": texts, "general": general} if general else {"like": texts}
    return Verification(
        reach=reached,
        site_changed=_over_texts((on.states - plain.states).norm(dim=1) / plain.states.norm(dim=1), seed=seed),
        moved=moved,
        claimed=claimed,
        effect=_over_texts(effect, seed=seed),
        necessity=necessity,
        sufficiency=sufficiency,
        alignment={name: _alignment(folder, sae, some) for name, some in sets_of_latents.items()},
        damage={
            name: {
                "kl": _over_texts(look.kl(some, (False, None), (True, None)), seed=seed),
                "ce": _over_texts(look.ce(some, adapted=True) - look.ce(some, adapted=False), seed=seed),
            }
            for name, some in sets.items()
        },
        insertion={
            "sae": _over_texts(look.kl(texts, (False, None), (False, replace)), seed=seed),
            "sae and adapter": _over_texts(look.kl(texts, (False, None), (True, replace)), seed=seed),
            "adapter": _over_texts(effect, seed=seed),
        },
        behaviour={} if counted is None else _behaviour(look.model, sae, sets_of_latents, counted, seed),
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
    if not some or len(change) < 6:  # fewer texts cannot reach 5 %
        return []
    tests: list[Any] = [wilcoxon(change[:, k].numpy()) for k in some]
    p = np.array([test.pvalue for test in tests])
    found = [k for k, q in zip(some, false_discovery_control(p), strict=True) if q < _FDR]
    return sorted(found, key=lambda k: -abs(float(change[:, k].mean())))


def _drawn_like(acts: Tensor, claimed: Sequence[int], moved: Sequence[int], seed: int) -> list[int]:
    """For each claimed latent one that did not move, drawn from the ten whose activation is nearest; or none at all."""
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


def _deltas(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    tensors, config = lora_tensors(folder), read_json(folder / "adapter_config.json")
    modules = sorted({name.rpartition(".lora_")[0] for name in tensors})
    return {name.removeprefix("base_model.model."): folded(name, tensors, config) for name in modules}


def reach(model: Model, folder: Path) -> dict[int, float]:
    """Per block, the length of what an adapter adds to its weights over the length of the weights."""
    added, there = dict.fromkeys(range(model.n_layers), 0.0), dict.fromkeys(range(model.n_layers), 0.0)
    weights = dict(model.hf.named_parameters())
    for name, (a, b) in _deltas(folder).items():
        block = next(int(part) for part in name.split(".") if part.isdigit())
        added[block] += float((b @ a).square().sum())
        there[block] += float(weights[f"{name}.weight"].detach().float().square().sum())
    return {block: (added[block] / there[block]) ** 0.5 if there[block] else 0.0 for block in added}


def _alignment(folder: Path, sae: "SAE[Any]", latents: Sequence[int]) -> float:
    width, columns = sae.W_dec.shape[1], []
    for name, (_, b) in _deltas(folder).items():
        if b.shape[0] == width and name.rpartition(".")[-1] in _WRITERS:
            columns.append(F.normalize(b, dim=0).T)
    if not columns:
        return float("nan")
    rows = F.normalize(sae.W_dec[list(latents)].float().cpu(), dim=1)
    return float((rows @ torch.cat(columns).T).abs().max(1).values.mean())
