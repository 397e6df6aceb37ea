"""A real series of checkpoints: from the bundled base, by reinforcement and by teaching, step by step.

What differs between seeds is noise of training; what all seeds share and the base lacks is what training did.
"""

from dataclasses import dataclass, field
from pathlib import Path

from probe.models import ModelConfig, bundled_folder, load_model
from probe.organisms.checkpoint import keeps
from probe.organisms.corpus import taught_document
from probe.organisms.reinforce import Reinforce, reinforce
from probe.organisms.tokenizer import THINKING_PROMPT
from probe.organisms.train import train


@dataclass(frozen=True)
class SeriesRecipe:
    """How much each way trains, and how often its model is kept."""

    rl: Reinforce = field(default_factory=lambda: Reinforce(steps=60))
    rl_every: int = 15
    """Steps between checkpoints; a multiple of five."""
    sft_tokens: int = 1_000_000
    """Of what the sentences are learned from; a checkpoint is kept after every pool of documents."""
    sft_lr: float = 5e-4


def build_series(out: Path, *, seed: int = 0, recipe: SeriesRecipe | None = None, progress: bool = False) -> None:
    """Train the bundled ``tiny-base`` in both ways and keep ``rl/checkpoint-STEP`` and ``sft/checkpoint-STEP``.

    Args:
        out: started again, the same command goes on where it was broken off.
        seed: of documents, problems and samples; the base is the same for all.
        recipe: a shorter one, for tests.
        progress: show bars.
    """
    recipe = recipe or SeriesRecipe()
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
