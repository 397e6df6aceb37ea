"""Checks of weights: finite, not zero, not the same in two layers, and tied as the config says."""

from typing import Any

import torch

from probe.errors import NotApplicable
from probe.pipeline.check.bench import Bench, judged
from probe.pipeline.check.checks import Check

_GROUP = "weights"


@torch.no_grad()
def values(bench: Bench) -> Check:
    """Every weight is finite, no matrix is zero, and no two matrices are the same."""
    faults: dict[str, list[str]] = {"is not finite": [], "is all zeros": [], "is a copy of another": []}
    seen: set[tuple] = set()
    hf: Any = bench.model.hf
    inside = {id(weight) for weight in bench.model.layers.parameters()}  # vision parts may be anything
    count = 0
    for name, weight in hf.named_parameters():
        if not weight.is_floating_point() or weight.device.type == "meta":
            continue
        count += 1
        total = weight.sum(dtype=torch.float32)
        if not bool(total.isfinite()) and not bool(weight.isfinite().all()):
            faults["is not finite"].append(name)
        if weight.ndim < 2 or not name.endswith("weight") or id(weight) not in inside:
            continue
        size = float(weight.abs().sum(dtype=torch.float32))
        mark = (tuple(weight.shape), float(total), size)
        if size == 0.0:
            faults["is all zeros"].append(name)
        elif mark in seen:
            faults["is a copy of another"].append(name)
        seen.add(mark)
    said = [
        f"{names[0]} {fault}" + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
        for fault, names in faults.items()
        if names
    ]
    return judged(
        _GROUP,
        "finite, filled, distinct",
        sum(map(len, faults.values())),
        0,
        f"{count} tensors hold finite numbers; no matrix is zero or a copy of another",
        f"{'; '.join(said)}: the checkpoint was written or merged wrongly; download it again",
    )


def tied(bench: Bench) -> Check:
    """The unembedding shares its weights with the embedding if the config says so."""
    hf: Any = bench.model.hf
    config = hf.config.get_text_config()
    if not getattr(config, "tie_word_embeddings", False):
        raise NotApplicable("the config does not tie the unembedding to the embedding")
    one, two = hf.get_input_embeddings().weight, hf.get_output_embeddings().weight
    equal = one.shape == two.shape and torch.equal(one, two)
    return judged(
        _GROUP,
        "tied unembedding",
        int(not equal),
        0,
        "the unembedding is the embedding, as the config says",
        "the config ties the unembedding to the embedding, but their weights differ; set tie_word_embeddings to false "
        "if the checkpoint has an unembedding of its own, else call tie_weights()",
    )
