"""Training ten sizes of top-k SAE with three seeds each together, against SAELens' trainer one SAE after another.

SAELens' trainer takes 400 steps for each SAE. It is compared with the time that training together needs, including its
initial centres, to reach the same mean validation loss. SAELens starts once from its own random weights, and once from
the sweep's initial centres, whose computation is not counted for it.

``python -m benchmarks.sae_sweep [--quick]``
"""

import os
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.table import Row, medians, report
from probe.activations import SentenceActivations, harvest
from probe.models import Model, load_pair
from probe.problems import load_problems
from probe.taxonomy import TaxonomyConfig
from probe.taxonomy.sae.starts import spherical_centres
from probe.taxonomy.sae.train import train_saes
from probe.taxonomy.sae.weights import Weights
from probe.taxonomy.search.search import Survey
from probe.traces import generate_traces

CONFIG = TaxonomyConfig(sizes=tuple(range(5, 51, 5)), seeds=(0, 1, 2), k=3)
SITE = "resid_post.2"
#: Steps of SAELens' trainer for each SAE.
STEPS = 400
#: The number of steps of the sweep is increased by this until it is as good as SAELens.
STRIDE = 50


def sentences(model: Model, split: str, n: int) -> SentenceActivations:
    story = load_problems("story")
    traces = generate_traces(model, story, story.take(split, n), max_new_tokens=320, batch_size=100)
    return harvest(model, traces, SITE)


def batches(x: Tensor, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        for chosen in torch.randperm(len(x), generator=generator).split(CONFIG.batch_size)[:-1]:
            yield x[chosen]


def saelens(x: Tensor, size: int, seed: int, centres: Tensor | None) -> Weights:
    """Train one SAE with SAELens' trainer; biases are fixed at zero, as in the sweep."""
    from sae_lens import LoggingConfig, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(seed)
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=x.shape[1], d_sae=size, k=CONFIG.k))
    if centres is not None:
        sae.W_dec.data.copy_(centres)
        sae.W_enc.data.copy_(centres.T)
    sae.b_dec.requires_grad_(False)
    sae.b_enc.requires_grad_(False)
    config = SAETrainerConfig(
        total_training_samples=STEPS * CONFIG.batch_size,
        train_batch_size_samples=CONFIG.batch_size,
        lr=CONFIG.lr,
        lr_end=CONFIG.lr / 10,
        lr_decay_steps=STEPS // 3,
        logger=LoggingConfig(log_to_wandb=False),
    )
    trainer = SAETrainer(config, sae, batches(x, seed))
    for _ in range(STEPS):
        trainer.step(next(trainer.data_provider))
        trainer.n_training_steps += 1
    norms = sae.W_dec.detach().norm(dim=1)
    return Weights(sae.W_enc.detach() * norms, sae.W_dec.detach() / norms[:, None], CONFIG.k)


def main() -> None:
    quick = "--quick" in sys.argv
    config = replace(CONFIG, sizes=(10, 30), seeds=(0,)) if quick else CONFIG
    thinking = load_pair("tiny-rl", device="cpu").thinking
    harvested = sentences(thinking, "train", 400), sentences(thinking, "validation", 120)
    split = Survey.of(*harvested, SITE, config).read()
    starts = {
        (size, seed): part
        for seed in config.seeds
        for size, part in zip(
            config.sizes, spherical_centres(split.x, config.sizes, seed).split(config.sizes), strict=True
        )
    }

    def loss(found: dict[tuple[int, int], Weights]) -> float:
        return 1 - sum(each.explained(split.x_validation) for each in found.values()) / len(found)

    def together(steps: int) -> dict[tuple[int, int], Weights]:
        return train_saes(
            split.x, split.x_validation, config.sizes, replace(config, steps=steps, patience=config.steps)
        )

    def one_by_one(same_start: bool) -> dict[tuple[int, int], Weights]:
        return {at: saelens(split.x, *at, centres if same_start else None) for at, centres in starts.items()}

    rows = []
    for same_start in (False, True):
        found: list[dict[tuple[int, int], Weights]] = []
        # SAELens takes minutes, so one round of it is enough.
        peer = medians({"peer": lambda same=same_start, found=found: found.append(one_by_one(same))}, 1, warm=True)
        target, steps = loss(found[0]), STRIDE
        while loss(together(steps)) > target and steps < config.steps:
            steps += STRIDE
        seconds = peer | medians({"together": lambda steps=steps: together(steps)}, 3, warm=True)
        start = "from the same centres" if same_start else "from its own start"
        rows.append(
            Row(
                f"{len(starts)} SAEs together, {steps} steps, time to a validation loss of {loss(together(steps)):.3f}",
                f"SAELens' trainer one after another, {STEPS} steps each {start}, to {target:.3f}",
                seconds["together"] / seconds["peer"],
                0.25,
                "lower",
            )
        )
    report("sae_sweep", rows)


if __name__ == "__main__":
    main()
