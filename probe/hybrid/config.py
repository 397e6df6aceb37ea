"""The names of all arms, and their settings."""

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
BASELINES = ("speculative", "fusion", "lora", "lora-rank-1", "bias", "majority")
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

RECIPES = {"probe": ("hybrid", *CONTROLS), "oracle-free": ("oracle-free",), "v1": V1, "v2": V2}
"""The arms that each recipe stands for."""
ARMS = ("hybrid", "oracle-free", *CONTROLS, *MECHANISMS, *BASELINES, *PROMPTED, *V1, *V2)
"""Every arm that can be named."""


@dataclass(frozen=True)
class HybridConfig:
    """Settings of the arms.

    Raises:
        ProbeError: if an arm is unknown or a setting is out of range.
    """

    arms: tuple[str, ...] = ("oracle-free", *CONTROLS, *MECHANISMS, *BASELINES)
    """Names of the arms to run beside base, thinking and hybrid. The name of a recipe (probe, oracle-free, v1, v2)
    stands for all arms of that recipe."""
    rerank_among: int = 5
    """Number of the base model's most likely tokens that the arm rerank-only chooses from."""
    speculative_tokens: int = 1
    """Number of tokens of each sentence that the thinking model writes in the arm speculative."""
    fusion_weight: float = 0.5
    """Weight of the thinking model's logits in the arm fusion."""
    majority_temperature: float = 0.7
    """Sampling temperature in the arm majority."""
    shots: int = 3
    """Number of worked examples in the arm few-shot."""
    v1_strengths: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    """Strengths that the search of the recipe v1 tries; the default is published for its largest models."""
    v1_windows: tuple[int, ...] = (0,)
    """Numbers of last tokens that the search of the recipe v1 shifts; 0 shifts all tokens, including the prompt."""

    def __post_init__(self) -> None:
        for name in self.arms:
            if name not in ARMS and name not in RECIPES:
                raise ProbeError(f"hybrid.arms has the unknown arm {name!r}; {nearest(name, [*ARMS, *RECIPES])}")
        check_least("hybrid", self, rerank_among=1, speculative_tokens=1, shots=1)
        check_above_zero("hybrid", self, "majority_temperature")
        if not self.v1_strengths or not self.v1_windows:
            raise ProbeError("hybrid.v1_strengths or hybrid.v1_windows is empty; give each at least one entry")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all arms to run, each once, the hybrid first."""
        wanted = [
            arm
            for name in self.arms
            for arm in ((name,) if name in ARMS and name not in ("v1", "v2") else RECIPES[name])
        ]
        return tuple(dict.fromkeys(["hybrid", *wanted]))


@dataclass(frozen=True)
class DistilConfig:
    """Settings for distilling a LoRA.

    Raises:
        ProbeError: if a setting is out of range.
    """

    steps: int = 1000
    """Maximum number of training steps. Training ends earlier, when the validation loss stops falling; one that reaches
    the maximum is reported as not converged."""
    check_every: int = 25
    """Number of steps between two evaluations on the validation traces."""
    patience: int = 25
    """The learning rate falls to zero after this many steps without progress."""
    lr: float = 5e-3
    """Highest learning rate of the LoRA."""
    batch_size: int = 16
    """Average number of traces in a training step."""

    def __post_init__(self) -> None:
        check_least("distil", self, steps=1, check_every=1, patience=1, batch_size=1)
        check_above_zero("distil", self, "lr")
