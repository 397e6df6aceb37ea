"""A script: the stages of a run with both models on the CPU, and on pretended devices; says what differs.

Its argument is where the pretended devices have the models: ``pair`` puts each on one, ``layers`` divides both.
"""

import json
import sys

from probe.models import load_pair
from tests.hybrid.stages import stages
from tests.pretend import Pretend, move, spread

ZERO, ONE = "pretend:0", "pretend:1"


def _divided(inputs: str, other: str) -> dict[str, str]:
    """Layers in turn on both devices; the unembedding shares the embedding's weight, and so its device."""
    ends = dict.fromkeys(("model.embed_tokens", "lm_head", "model.rotary_emb"), inputs)
    blocks = {f"model.layers.{i}": (inputs, other)[i % 2] for i in range(4)}
    return ends | blocks | {"model.norm": other}


if __name__ == "__main__":
    pair = load_pair("tiny-rl", device="cpu")
    plain, taxonomy, _ = stages(pair)
    with Pretend():
        if sys.argv[1] == "pair":
            move(pair.base, ZERO)
            move(pair.thinking, ONE)
        else:
            spread(pair.base, _divided(ZERO, ONE))
            spread(pair.thinking, _divided(ONE, ZERO))
        apart, _, vectors = stages(pair, taxonomy)
    told = {"stages": list(plain), "differ": [name for name in plain if plain[name] != apart[name]]}
    sys.stdout.write(json.dumps(told | {"vectors": str(vectors.vectors.device)}) + "\n")
