"""Trains checkpoint series from the bundled base model, by reinforcement learning and by supervised training.

Differences between seeds are training noise. What all seeds share and the base lacks is what training did.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from probe.engine import KeptFolder
from probe.models import ModelConfig, bundled_folder, load_model
from probe.organisms.checkpoint import keeps
from probe.organisms.corpus import taught_document
from probe.organisms.reinforce import Reinforce, reinforce
from probe.organisms.tokenizer import THINKING_PROMPT
from probe.organisms.train import train


@dataclass(frozen=True)
class SeriesRecipe:
    """How long each of the two series trains, and how often a checkpoint is kept."""

    rl: Reinforce = field(default_factory=lambda: Reinforce(steps=60))
    """Settings of reinforcement learning."""
    rl_every: int = 15
    """Steps of reinforcement learning between checkpoints; a multiple of five."""
    sft_tokens: int = 1_000_000
    """Tokens of supervised training that carry loss. A checkpoint is kept after every pool of documents."""
    sft_lr: float = 5e-4
    """Peak learning rate of supervised training."""


def build_series(out: str | Path, *, seed: int = 0, recipe: SeriesRecipe | None = None, progress: bool = False) -> None:
    """Train the bundled ``tiny-base`` in both ways and keep ``rl/checkpoint-STEP`` and ``sft/checkpoint-STEP``.

    Args:
        out: the folder of both series. A second call resumes an interrupted build.
        seed: seeds documents, problems and samples. The base model is the same for all seeds.
        recipe: how long each series trains; None for the default.
        progress: show progress bars.
    """
    out, recipe = Path(out), recipe or SeriesRecipe()
    with KeptFolder(out, {"work": "series", "seed": seed, "recipe": asdict(recipe)}, "*/checkpoint-*/*.safetensors"):
        _build(out, seed, recipe, progress)


def _build(out: Path, seed: int, recipe: SeriesRecipe, progress: bool) -> None:
    """Train in a folder that is locked."""
    work = [out / "work" / name for name in ("sft", "rl")]
    for folder in work:
        folder.mkdir(parents=True, exist_ok=True)
    config = ModelConfig(str(bundled_folder("tiny-base")), prompt=THINKING_PROMPT)
    taught, reinforced = load_model(config, device="cpu"), load_model(config, device="cpu")
    train(
        taught.hf.requires_grad_(True), taught.tokenizer, taught_document, work[0],
        tokens=recipe.sft_tokens, seed=seed, lr=recipe.sft_lr,
        keep=keeps(out / "sft", taught.tokenizer), progress=progress,
    )  # fmt: skip
    reinforce(
        reinforced, work[1], recipe.rl, seed=seed,
        keep=keeps(out / "rl", reinforced.tokenizer, recipe.rl_every), progress=progress,
    )  # fmt: skip
