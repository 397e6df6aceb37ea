"""``probe adapter sae``: trains an ordinary SAE on a model's states and measures how well it reconstructs them."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.activations import harvest
from probe.adapters import sae_quality, save_saelens, save_sparsify, site_of, train_sae
from probe.config import from_dict, read_as, to_dict
from probe.engine import KeptFolder, difference
from probe.errors import NotApplicable, ProbeError
from probe.files import located, write_json
from probe.models import Site, place
from probe.pipeline.adapter.inputs import AdapterInputs, prepare_adapter, same_settings
from probe.pipeline.adapter.sae_config import SAEConfig, TrainSAEConfig

if TYPE_CHECKING:
    from sae_lens import SAE

#: Most test texts on which an SAE is measured.
_MEASURED = 40


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
    out = Path(out).expanduser()
    told = {"sae": to_dict(config.sae), "seed": config.seed}
    written = out / "config.json"
    if written.exists():
        before = read_as(dict[str, Any], written)
        if (said := difference({name: before.get(name) for name in told}, told)) is not None:
            raise ProbeError(f"{out} holds an SAE with other settings ({said}): name another folder, or remove it")
    inputs = prepare_adapter(config.adapter)
    config = from_dict(TrainSAEConfig, located(to_dict(config), Path.cwd()))
    if config.sae.site is not None:
        place(inputs.model.hf, Site.parse(config.sae.site))
    hashes = inputs.hashes()
    key = {"work": "sae", **told, **{name: hashes[name] for name in ("model", "train", "test", "learning")}}
    home = KeptFolder(
        out, key, "config.json", lambda: same_settings(read_as(dict[str, Any], written).get("adapter"), config.adapter)
    )
    home.check()
    if not (out / "quality.json").exists():
        with home:
            write_json(written, to_dict(config))
            make_sae(inputs, config.sae, out, seed=config.seed, progress=progress)
    return read_as(dict[str, Any], out / "quality.json")


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
    converged = sae.cfg.metadata.get("converged")
    size = {"converged": converged} if converged is not None else {}
    size |= {"latents": int(sae.cfg.d_sae), "k": getattr(sae.cfg, "k", None)}
    quality = sae_quality(model, sae, inputs.test[:_MEASURED])
    save_saelens(sae, out / "sae")
    write_json(out / "quality.json", {"site": str(site_of(sae)), **size, **quality})
    shutil.rmtree(out / "activations", ignore_errors=True)  # large, and quickly harvested again


def _was(written: Path, config: TrainSAEConfig) -> bool:
    """Whether the settings that an earlier version wrote are these."""
    return same_settings(read_as(dict[str, Any], written).get("adapter"), config.adapter)
