"""``probe adapter sae``: an ordinary SAE on the states of the model that adapters are trained on, and its quality."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.activations import harvest
from probe.adapters import sae_quality, save_sparsify, site_of, train_sae
from probe.config import check_above_zero, check_least, to_dict
from probe.errors import ProbeError
from probe.files import read_json, write_json
from probe.models import Site, place
from probe.pipeline.adapter.config import AdapterConfig
from probe.pipeline.adapter.inputs import AdapterInputs, prepare_adapter

if TYPE_CHECKING:
    from sae_lens import SAE

#: Held-out texts by which an SAE is measured.
_MEASURED = 40


@dataclass(frozen=True)
class SAEConfig:
    """An ordinary top-k SAE, trained by SAELens on the model's states at the tokens of the training texts."""

    site: str | None = None
    """None takes the block in the middle."""
    latents: int = 0
    """0 takes eight for each dimension of the model."""
    k: int = 16
    steps: int = 2000
    batch_size: int = 1024
    lr: float = 1e-3
    own: bool = False
    """Of a run, also on what the model itself writes on the training problems."""

    def __post_init__(self) -> None:
        check_least("sae", self, latents=0, k=1, steps=1, batch_size=1)
        check_above_zero("sae", self, "lr")


@dataclass(frozen=True)
class TrainSAEConfig:
    """Everything ``probe adapter sae`` can be told."""

    adapter: AdapterConfig
    """The model and its texts; the rest is not looked at."""
    sae: SAEConfig = field(default_factory=SAEConfig)
    seed: int = 0


def train_adapter_sae(config: TrainSAEConfig, out: Path, *, progress: bool = False) -> dict[str, Any]:
    """Train an SAE into ``out/sae`` (SAELens' form) and ``out/sparsify``; one that is there is not trained again.

    Returns:
        What ``out/quality.json`` holds: site, latents, k, variance explained and KL when inserted, on held-out texts.

    Raises:
        ProbeError: for anything the user can mend, before the first step.
    """
    told = to_dict(config)
    if (out / "config.json").exists() and read_json(out / "config.json") != told:
        raise ProbeError(f"{out} holds an SAE of other settings: name another folder, or remove that one")
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
    """Write an SAE and its quality, which comes last.

    Args:
        given: is measured and written as it is; without it one is trained.
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
        save_sparsify(sae, out / "sparsify")
    size = {"latents": int(sae.cfg.d_sae), "k": getattr(sae.cfg, "k", None)}
    quality = sae_quality(model, sae, inputs.test[:_MEASURED])
    sae.save_model(out / "sae")
    write_json(out / "quality.json", {"site": str(site_of(sae)), **size, **quality})
    shutil.rmtree(out / "activations", ignore_errors=True)  # large, and made again in minutes
