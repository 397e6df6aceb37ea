"""What is done with a pair whose models are on the CPU, and on pretended devices, in a process of its own."""

import json
import sys
from typing import Any

from probe.models import load_pair
from tests.hybrid.measures import measures
from tests.hybrid.stages import differing, stages

ZERO, ONE = "pretend:0", "pretend:1"


def _divided(inputs: str, other: str) -> dict[str, str]:
    """Layers in turn on both devices; the unembedding shares the embedding's weight, and so its device."""
    ends = dict.fromkeys(("model.embed_tokens", "lm_head", "model.rotary_emb"), inputs)
    blocks = {f"model.layers.{i}": (inputs, other)[i % 2] for i in range(4)}
    return ends | blocks | {"model.norm": other}


def compare(what: str) -> None:
    """Write what was done in each layout, and what differs.

    ``pair`` puts each model on a pretended device, ``layers`` divides each between one and the CPU.

    Args:
        what: the ``stages`` of a run, or other ``measures``.
    """
    # They register a device for the whole process.
    from tests.pretend import Pretend, move, spread

    work: Any = stages if what == "stages" else measures
    plain, taxonomy, *_ = work(load_pair("tiny-rl", device="cpu"))
    told = {}
    for how in ("pair", "layers"):
        pair = load_pair("tiny-rl", device="cpu")
        with Pretend():
            if how == "pair":
                move(pair.base, ZERO)
                move(pair.thinking, ONE)
            else:
                spread(pair.base, _divided(ZERO, "cpu"))
                spread(pair.thinking, _divided("cpu", ZERO))
            apart, *_ = work(pair, taxonomy)
        told[how] = {"done": list(apart), "differ": differing(plain, apart)}
    sys.stdout.write(json.dumps(told) + "\n")
