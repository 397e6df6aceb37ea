"""A script: what is done with a pair whose models are on the CPU, and on pretended devices; says what differs.

Its first argument says what: the ``stages`` of a run, or other ``measures``. Its second says how: ``pair`` puts each
model on a pretended device, ``layers`` divides each between one and the CPU.
"""

import json
import sys
from typing import Any

from probe.models import load_pair
from tests.hybrid.measures import measures
from tests.hybrid.stages import differing, stages
from tests.pretend import Pretend, move, spread

ZERO, ONE = "pretend:0", "pretend:1"


def _divided(inputs: str, other: str) -> dict[str, str]:
    """Layers in turn on both devices; the unembedding shares the embedding's weight, and so its device."""
    ends = dict.fromkeys(("model.embed_tokens", "lm_head", "model.rotary_emb"), inputs)
    blocks = {f"model.layers.{i}": (inputs, other)[i % 2] for i in range(4)}
    return ends | blocks | {"model.norm": other}


if __name__ == "__main__":
    what, how = sys.argv[1:]
    work: Any = stages if what == "stages" else measures
    pair = load_pair("tiny-rl", device="cpu")
    plain, taxonomy, *_ = work(pair)
    with Pretend():
        if how == "pair":
            move(pair.base, ZERO)
            move(pair.thinking, ONE)
        else:
            spread(pair.base, _divided(ZERO, "cpu"))
            spread(pair.thinking, _divided("cpu", ZERO))
        apart, *_ = work(pair, taxonomy)
    told = {"done": list(apart), "differ": differing(plain, apart)}
    sys.stdout.write(json.dumps(told) + "\n")
