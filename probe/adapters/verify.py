"""What an adapter does: how far it reaches, which latents it moves, whether they carry it, and what it breaks.

Every figure is a mean over texts with a bootstrap interval over them; what is compared is paired text by text.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import false_discovery_control, wilcoxon
from torch import Tensor
from tqdm.auto import tqdm

from probe._files import read_json
from probe.adapters.attach import attached, lora_tensors, switched_off
from probe.adapters.export import folded
from probe.adapters.insertion import Ablate, Boost, Insertion, Replace
from probe.adapters.objective import kl, with_insertion
from probe.adapters.packing import Example, Packed, pack
from probe.adapters.saes import site_of
from probe.hooks import capture
from probe.models import Model

if TYPE_CHECKING:
    from sae_lens import SAE

_RESAMPLES = 2000
#: Linear layers that write to the residual stream.
_WRITERS = ("o_proj", "down_proj", "c_proj", "dense", "dense_4h_to_h")
#: Share of false findings among the latents that are said to have moved.
_FDR = 0.05


@dataclass(frozen=True)
class Measured:
    """A mean over texts and its 95 % interval."""

    value: float
    ci: tuple[float, float]


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
            many drawn latents of like frequency, where there are so many.
        sufficiency: the share of the effect that the base model shows when those latents are raised to at least
            their mean under the adapter; and with drawn ones.
        alignment: of the adapter's writing directions, the mean greatest |cosine| with the claimed decoder rows; and
            with drawn ones.
        damage: per set of texts, KL(base ‖ adapter) and the change of cross-entropy.
        insertion: KL from the base model with the SAE in place alone, with SAE and adapter, and of the adapter alone.
    """

    reach: dict[int, float]
    site_changed: Measured
    moved: list[int]
    claimed: list[int]
    effect: Measured
    necessity: dict[str, Measured]
    sufficiency: dict[str, Measured]
    alignment: dict[str, float]
    damage: dict[str, dict[str, Measured]]
    insertion: dict[str, Measured]

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which knows no number that is none: None stands for a share of nothing."""
        return _finite(asdict(self))


def verify(
    model: Model,
    folder: str | Path,
    sae: "SAE[Any]",
    texts: Sequence[Example],
    *,
    general: Sequence[Example] = (),
    latents: Sequence[int] = (),
    most: int = 8,
    seed: int = 0,
    progress: bool = False,
) -> Verification:
    """Measure an adapter on texts that it was not trained on.

    Args:
        texts: like those that it was trained for.
        general: others, on which it should change nothing.
        latents: those that it is said to work through; without any, up to ``most`` of those moved.
        seed: draws the controls and the intervals.
        progress: show a bar for each round through the texts.

    Raises:
        ProbeError: if the adapter is not for this model.
    """
    reach = _reach(model, Path(folder))
    with attached(model, folder):
        return _verify(_Look(model, sae, seed, progress), Path(folder), texts, general, latents, most, reach)


def _verify(
    look: "_Look",
    folder: Path,
    texts: Sequence[Example],
    general: Sequence[Example],
    latents: Sequence[int],
    most: int,
    reach: dict[int, float],
) -> Verification:
    sae = look.sae
    plain, on = look.acts(texts, adapted=False), look.acts(texts, adapted=True)
    moved = _moved(plain.latents, on.latents)
    claimed = list(latents) or moved[:most] or plain.latents.mean(0).argsort(descending=True)[:most].tolist()
    drawn = _drawn_like(plain.latents, claimed, look.seed)
    effect = look.kl(texts, (False, None), (True, None))
    necessity, sufficiency = {}, {}
    sets_of_latents = {"claimed": claimed} | ({"drawn": drawn} if drawn else {})
    for name, some in sets_of_latents.items():
        off = Ablate(sae, tuple(some))
        left = look.kl(texts, (False, off), (True, off))
        necessity[name] = look.share(effect - left, effect)
        raised = Boost(sae, tuple(some), tuple(on.latents.mean(0)[some].tolist()))
        reproduced = look.kl(texts, (True, None), (False, raised))
        backwards = look.kl(texts, (True, None), (False, None))
        sufficiency[name] = look.share(backwards - reproduced, backwards)
    replace = Replace(sae, through=False)
    sets = {"like": texts, "general": general} if general else {"like": texts}
    return Verification(
        reach=reach,
        site_changed=look.measured((on.states - plain.states).norm(dim=1) / plain.states.norm(dim=1)),
        moved=moved,
        claimed=claimed,
        effect=look.measured(effect),
        necessity=necessity,
        sufficiency=sufficiency,
        alignment={name: _alignment(folder, sae, some) for name, some in sets_of_latents.items()},
        damage={
            name: {
                "kl": look.measured(look.kl(some, (False, None), (True, None))),
                "ce": look.measured(look.ce(some, adapted=True) - look.ce(some, adapted=False)),
            }
            for name, some in sets.items()
        },
        insertion={
            "sae": look.measured(look.kl(texts, (False, None), (False, replace))),
            "sae and adapter": look.measured(look.kl(texts, (False, None), (True, replace))),
            "adapter": look.measured(effect),
        },
    )


@dataclass(frozen=True)
class _Acts:
    """Means over each text: ``latents [texts, latents]``, ``states [texts, d_model]``."""

    latents: Tensor
    states: Tensor


Side = tuple[bool, Insertion | None]
"""With the adapter or without, and what is inserted."""


class _Look:
    """Passes over texts, with the adapter that is attached and without."""

    def __init__(self, model: Model, sae: "SAE[Any]", seed: int, progress: bool) -> None:
        self.model, self.sae, self.seed, self.progress = model, sae, seed, progress

    def kl(self, texts: Sequence[Example], first: Side, second: Side) -> Tensor:
        """Of each text, the mean KL over its tokens that count."""
        return self._per_text(texts, lambda batch: kl(self._logits(batch, first), self._logits(batch, second)))

    def ce(self, texts: Sequence[Example], *, adapted: bool) -> Tensor:
        return self._per_text(
            texts,
            lambda batch: F.cross_entropy(self._logits(batch, (adapted, None)), batch.targets, reduction="none"),
        )

    @torch.no_grad()
    def acts(self, texts: Sequence[Example], *, adapted: bool) -> _Acts:
        site, latents, states = site_of(self.sae), [], []
        for batch in self._batches(texts):
            with self._maybe(adapted), capture(self.model, site, stop=False) as acts:
                batch.logits(self.model)
            state = acts[site][batch.counts].float()
            latents.append(self.sae.encode(state.to(self.sae.dtype)).float().mean(0))
            states.append(state.mean(0))
        return _Acts(torch.stack(latents).cpu(), torch.stack(states).cpu())

    def measured(self, values: Tensor) -> Measured:
        return self.share(values, torch.ones_like(values))

    def share(self, part: Tensor, whole: Tensor) -> Measured:
        """A ratio of means, resampled text by text."""
        some = np.random.default_rng(self.seed).integers(0, len(part), (_RESAMPLES, len(part)))
        top, bottom = part.double().numpy(), whole.double().numpy()
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = top[some].mean(1) / bottom[some].mean(1)
            value = float(top.mean() / bottom.mean())
        low, high = np.nanpercentile(ratios, [2.5, 97.5]) if np.isfinite(ratios).any() else (np.nan, np.nan)
        return Measured(value, (float(low), float(high)))

    @torch.no_grad()
    def _per_text(self, texts: Sequence[Example], losses: Callable[[Packed], Tensor]) -> Tensor:
        return torch.stack([losses(batch).mean().cpu() for batch in self._batches(texts)])

    def _batches(self, texts: Sequence[Example]) -> Iterator[Packed]:
        for text in tqdm(texts, desc="verifying", unit="text", leave=False, disable=not self.progress):
            yield pack(self.model, [text], len(text.ids))

    def _logits(self, batch: Packed, side: Side) -> Tensor:
        adapted, insertion = side
        with self._maybe(adapted), with_insertion(self.model, insertion, batch):
            return batch.logits(self.model)

    def _maybe(self, adapted: bool) -> AbstractContextManager[None]:
        return nullcontext() if adapted else switched_off(self.model)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _moved(plain: Tensor, on: Tensor) -> list[int]:
    change = (on - plain).double()
    some = [k for k in range(change.shape[1]) if change[:, k].abs().max() > 0]
    if not some or len(change) < 6:  # fewer texts cannot reach 5 %
        return []
    tests: list[Any] = [wilcoxon(change[:, k].numpy()) for k in some]
    p = np.array([test.pvalue for test in tests])
    found = [k for k, q in zip(some, false_discovery_control(p), strict=True) if q < _FDR]
    return sorted(found, key=lambda k: -abs(float(change[:, k].mean())))


def _drawn_like(acts: Tensor, claimed: Sequence[int], seed: int) -> list[int]:
    """For each claimed latent another one, drawn from the ten that are active nearest as often; none if too few are."""
    generator = torch.Generator().manual_seed(seed)
    often = acts.mean(0)
    found: list[int] = []
    for latent in claimed:
        near = (often - often[latent]).abs().argsort().tolist()
        free = [k for k in near if k not in claimed and k not in found][:10]
        if not free:
            return []
        found.append(free[int(torch.randint(len(free), (), generator=generator))])
    return found


def _deltas(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    tensors, config = lora_tensors(folder), read_json(folder / "adapter_config.json")
    modules = sorted({name.rpartition(".lora_")[0] for name in tensors})
    return {name.removeprefix("base_model.model."): folded(name, tensors, config) for name in modules}


def _reach(model: Model, folder: Path) -> dict[int, float]:
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
        if b.shape[0] == width and name.rpartition(".")[-1] in (
            "o_proj",
            "down_proj",
            "c_proj",
            "dense",
            "dense_4h_to_h",
        ):
            columns.append(F.normalize(b, dim=0).T)
    if not columns:
        return float("nan")
    rows = F.normalize(sae.W_dec[list(latents)].float().cpu(), dim=1)
    return float((rows @ torch.cat(columns).T).abs().max(1).values.mean())
