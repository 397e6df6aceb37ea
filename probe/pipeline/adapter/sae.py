"""``probe adapter sae``: trains an ordinary SAE on a model's states and measures how well it reconstructs them."""

import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.activations import harvest
from probe.adapters import sae_quality, save_saelens, save_sparsify, site_of, train_sae
from probe.config import check_above_zero, check_least, to_dict
from probe.errors import NotApplicable, ProbeError
from probe.files import read_json, write_json
from probe.models import Site, place
from probe.pipeline.adapter.config import AdapterConfig
from probe.pipeline.adapter.inputs import AdapterInputs, prepare_adapter

if TYPE_CHECKING:
    from sae_lens import SAE

#: Most test texts on which an SAE is measured.
_MEASURED = 40


@dataclass(frozen=True)
class SAEConfig:
    """An ordinary top-k SAE, which SAELens trains on the model's states at the tokens of the training texts."""

    site: str | None = None
    """Site that the SAE reads, such as ``resid_post.12``; None takes the output of the middle block."""
    latents: int = 0
    """Number of latents; 0 takes eight times the model's width."""
    k: int = 16
    """Number of latents that are active at a token."""
    steps: int = 2000
    """Training steps."""
    batch_size: int = 1024
    """Tokens in a training step."""
    lr: float = 1e-3
    """Highest learning rate."""
    own: bool = False
    """Whether to train also on the base model's own rollouts on a run's training problems."""

    def __post_init__(self) -> None:
        check_least("sae", self, latents=0, k=1, steps=1, batch_size=1)
        check_above_zero("sae", self, "lr")


@dataclass(frozen=True)
class TrainSAEConfig:
    """The settings of ``probe adapter sae``."""

    adapter: AdapterConfig
    """The model and its texts; the other settings of an adapter are ignored."""
    sae: SAEConfig = field(default_factory=SAEConfig)
    """The SAE and its training."""
    seed: int = 0
    """Seeds the SAE's weights and the order of the tokens."""


def train_adapter_sae(config: TrainSAEConfig, out: str | Path, *, progress: bool = False) -> dict[str, Any]:
    """Train an SAE into ``out/sae`` (SAELens' format) and, where sparsify has its site, into ``out/sparsify``.

    A finished one is not trained again.

    Args:
        out: the folder that is written.
        progress: show bars.

    Returns:
        What ``out/quality.json`` holds: ``site``, ``latents``, ``k``, and :func:`~probe.adapters.sae_quality` on test
        texts.

    Raises:
        ProbeError: for invalid settings or inputs, before the first step.
    """
    out = Path(out)
    told = to_dict(config)
    if (out / "config.json").exists() and read_json(out / "config.json") != told:
        raise ProbeError(f"{out} holds an SAE with other settings: name another folder, or remove that one")
    inputs = prepare_adapter(config.adapter)
    if config.sae.site is not None:
        place(inputs.model.hf, Site.parse(config.sae.site))
    if not (out / "quality.json").exists():
        write_json(out / "config.json", told)
        make_sae(inputs, config.sae, out, seed=config.seed, progress=progress)
    return read_json(out / "quality.json")


def make_sae(
    inputs: AdapterInputs,
    config: SAEConfig,
    out: Path,
    given: "SAE[Any] | None" = None,
    *,
    seed: int,
    progress: bool = False,
) -> None:
    """Train or take an SAE and write it into a folder with its quality, which is written last.

    Args:
        inputs: the model and its texts.
        out: the folder that is written.
        given: an SAE that is written and measured instead of a new one.
        seed: seeds the training.
        progress: show bars.
    """
    model, sae = inputs.model, given
    if sae is None:
        site = Site.parse(config.site or f"resid_post.{(model.n_layers - 1) // 2}")
        texts = [*inputs.train]
        if config.own and inputs.learning is not None:
            texts += inputs.learning.texts(model)
        ids = [list(text.ids) for text in texts]
        store = harvest(model, ids, site, unit="token", folder=out / "activations", progress=progress)
        sae = train_sae(
            store,
            site,
            latents=config.latents or 8 * model.d_model,
            k=config.k,
            steps=config.steps,
            batch_size=config.batch_size,
            lr=config.lr,
            seed=seed,
            device=str(model.device),
            progress=progress,
        )
        with suppress(NotApplicable):  # not every site has a hookpoint there
            save_sparsify(sae, out / "sparsify", model)
    size = {"latents": int(sae.cfg.d_sae), "k": getattr(sae.cfg, "k", None)}
    quality = sae_quality(model, sae, inputs.test[:_MEASURED])
    save_saelens(sae, out / "sae")
    write_json(out / "quality.json", {"site": str(site_of(sae)), **size, **quality})
    shutil.rmtree(out / "activations", ignore_errors=True)  # large, and quickly harvested again
