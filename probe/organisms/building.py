"""Builds the bundled pairs from scratch: pretraining, supervised and reinforcement training, then verification.

A build takes two hours on one core. Every stage keeps a checkpoint and a log, so an interrupted build resumes.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers import PreTrainedModel

from probe.engine import KeptFolder
from probe.files import read_json, write_json
from probe.models import Model, ModelConfig, load_model
from probe.organisms.card import write_cards
from probe.organisms.checkpoint import keeps
from probe.organisms.corpus import early_document, pretraining_document, taught_document
from probe.organisms.reinforce import Reinforce, reinforce
from probe.organisms.tokenizer import BASE_PROMPT, THINKING_PROMPT, build_tokenizer
from probe.organisms.train import new_model, train
from probe.organisms.verify import verify


@dataclass(frozen=True)
class Recipe:
    """How long each stage of :func:`build` trains."""

    early_tokens: int = 4_500_000
    """Tokens of the first stage of pretraining, which reads documents with the early habits."""
    early_lr: float = 2e-3
    """Peak learning rate of the first stage of pretraining."""
    base_tokens: int = 700_000
    """Tokens of the second stage of pretraining, which reads documents with the final habits."""
    base_lr: float = 1e-3
    """Peak learning rate of the second stage of pretraining."""
    sft_tokens: int = 1_000_000
    """Tokens of supervised training that carry loss."""
    sft_lr: float = 5e-4
    """Peak learning rate of supervised training."""
    rl: tuple[Reinforce, ...] = (Reinforce(), Reinforce(steps=15, lr=2e-4, kl=0.01))
    """Phases of reinforcement learning, in order."""
    keep_every: int = 15
    """Steps of reinforcement learning between the checkpoints that are kept. Supervised training keeps one a pool."""


def build(out: str | Path, *, seed: int = 0, recipe: Recipe | None = None, progress: bool = False) -> dict:
    """Train ``tiny-base``, ``tiny-rl`` and ``tiny-sft``, measure them and write their cards.

    Args:
        out: the folder that holds one folder for each model. A second call does only what is missing.
        seed: seeds initial weights, documents, problems and samples.
        recipe: how long each stage trains; None for that of the bundled models.
        progress: show progress bars.

    Returns:
        The figures of :func:`~probe.organisms.verify.verify`.

    Raises:
        ProbeError: if the folder holds models of another seed or recipe, or another process writes into it.
    """
    root, recipe = Path(out), recipe or Recipe()
    key = {"work": "bundled models", "seed": seed, "recipe": asdict(recipe)}
    with KeptFolder(root, key, "*/model.safetensors", lambda: _made_with(root, seed)):
        return _build(root, seed, recipe, progress)


def _made_with(root: Path, seed: int) -> bool:
    """Whether the cards of an earlier version name this seed."""
    cards = [card for card in (root / name / "README.md" for name in ("tiny-base", "tiny-rl")) if card.is_file()]
    return bool(cards) and all(f"--seed {seed}`" in card.read_text(encoding="utf-8") for card in cards)


def _build(root: Path, seed: int, recipe: Recipe, progress: bool) -> dict:
    """Train what is missing in a folder that is locked."""
    tokenizer = build_tokenizer()

    def stage(name: str, prompt: str, make: Callable[[Path], PreTrainedModel]) -> Model:
        folder = root / name
        if not (folder / "model.safetensors").exists():
            work = root / "work" / name
            work.mkdir(parents=True, exist_ok=True)
            made = make(work)
            fresh = root / "work" / f"{name}.finished"
            made.save_pretrained(fresh)
            tokenizer.save_pretrained(fresh)
            fresh.replace(folder)  # a rename, so that a model folder is always complete
        return load_model(ModelConfig(str(folder), prompt=prompt), device="cpu")

    def from_base(prompt: str) -> Model:
        return load_model(ModelConfig(str(root / "tiny-base"), prompt=prompt), device="cpu")

    def taught(work: Path) -> PreTrainedModel:
        hf = from_base(THINKING_PROMPT).hf.requires_grad_(True)
        return train(
            hf, tokenizer, taught_document, work,
            tokens=recipe.sft_tokens, seed=seed, lr=recipe.sft_lr, keep=keeps(work, tokenizer), progress=progress,
        )  # fmt: skip

    def pretrained(work: Path) -> PreTrainedModel:
        hf: PreTrainedModel = new_model(tokenizer, seed)
        early, late = work / "early", work / "late"
        for document, folder, tokens, lr in (
            (early_document, early, recipe.early_tokens, recipe.early_lr),
            (pretraining_document, late, recipe.base_tokens, recipe.base_lr),
        ):
            folder.mkdir(exist_ok=True)
            hf = train(hf, tokenizer, document, folder, tokens=tokens, seed=seed, lr=lr, progress=progress)
        return hf

    base = stage("tiny-base", BASE_PROMPT, pretrained)
    sft = stage("tiny-sft", THINKING_PROMPT, taught)

    def reinforced(work: Path) -> PreTrainedModel:
        model = from_base(THINKING_PROMPT)
        for i, settings in enumerate(recipe.rl):
            phase = work / f"phase-{i}"
            phase.mkdir(exist_ok=True)
            reinforce(
                model,
                phase,
                settings,
                seed=seed + 1000 * i,
                reference=from_base(THINKING_PROMPT),
                keep=keeps(phase, tokenizer, recipe.keep_every),
                progress=progress,
            )
        return model.hf

    rl = stage("tiny-rl", THINKING_PROMPT, reinforced)
    figures = root / "figures.json"
    if not figures.exists():
        write_json(figures, verify(base, rl, sft, progress=progress))
    write_cards(root, read_json(figures), seed=seed)
    return read_json(figures)
