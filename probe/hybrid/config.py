"""Which arms an experiment has, and their settings."""

from dataclasses import dataclass

from probe.config import check_above_zero, check_least, nearest
from probe.errors import ProbeError

CONTROLS = (
    "single-vector",
    "random-category",
    "min-cosine",
    "random-vectors",
    "random-positions",
    "rerank-only",
    "force-token",
)
MECHANISMS = ("mean-difference", "decoder-rows", "rank-1")
RIVALS = ("speculative", "fusion", "lora", "lora-rank-1", "bias", "majority")
PROMPTED = ("few-shot", "handbook")
V1 = (
    "v1",
    "v1-bias-only",
    "v1-random-category",
    "v1-random-vectors",
    "v1-random-choice",
    "v1-fixed",
    "v1-rerank",
    "v1-learned-vectors",
)
V2 = ("v2", "v2-random-category", "v2-random-vectors", "v2-random-both", "v2-random-positions")

#: Named configurations, and the arms that belong to each.
RECIPES = {"probe": ("hybrid", *CONTROLS), "oracle-free": ("oracle-free",), "v1": V1, "v2": V2}
#: Everything that can be asked for by name.
ARMS = ("hybrid", "oracle-free", *CONTROLS, *MECHANISMS, *RIVALS, *PROMPTED, *V1, *V2)


@dataclass(frozen=True)
class HybridConfig:
    """Which arms are run, beside base, thinking and hybrid, and how."""

    arms: tuple[str, ...] = ("oracle-free", *CONTROLS, *MECHANISMS, *RIVALS)
    """By name; a recipe's name stands for the recipe with its own controls: probe, oracle-free, v1, v2."""
    rerank_among: int = 5
    """Of how many of the base model's likeliest tokens rerank-only chooses."""
    speculative_tokens: int = 1
    """How many tokens of every sentence the thinking model writes in the arm speculative."""
    fusion_weight: float = 0.5
    """Weight of the thinking model's logits in the arm fusion."""
    majority_temperature: float = 0.7
    shots: int = 3
    """Worked examples in the arm few-shot."""
    v1_strengths: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    """Strengths that the search of recipe v1 tries (published, for its largest models)."""
    v1_windows: tuple[int, ...] = (0,)
    """How many of the last tokens it shifts; 0 for all, the prompt too."""

    def __post_init__(self) -> None:
        for name in self.arms:
            if name not in ARMS and name not in RECIPES:
                raise ProbeError(f"hybrid.arms has {name!r}, which is no arm; {nearest(name, [*ARMS, *RECIPES])}")
        check_least("hybrid", self, rerank_among=1, speculative_tokens=1, shots=1)
        check_above_zero("hybrid", self, "majority_temperature")
        if not self.v1_strengths or not self.v1_windows:
            raise ProbeError("hybrid.v1_strengths and hybrid.v1_windows must each have an entry")

    @property
    def names(self) -> tuple[str, ...]:
        """Every arm that is wanted, once, the hybrid first."""
        wanted = [
            arm
            for name in self.arms
            for arm in ((name,) if name in ARMS and name not in ("v1", "v2") else RECIPES[name])
        ]
        return tuple(dict.fromkeys(["hybrid", *wanted]))
