"""The names of all arms, and their settings."""

from dataclasses import dataclass
from typing import Literal

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
INFERENCE = (
    "budget",
    "budget-on-thinking",
    "intervention",
    "intervention-on-thinking",
    "addition",
    "addition-on-thinking",
    "thinking-then-base",
    "base-then-thinking",
    "thinking-opening",
)
"""What is used at inference elsewhere: text that is inserted, one vector at every token, phases of either model."""
LATENT_SEEK = ("latent-seek", "latent-seek-grade")
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

RECIPES = {
    "probe": ("hybrid", *CONTROLS),
    "oracle-free": ("oracle-free",),
    "inference": INFERENCE,
    "v1": V1,
    "v2": V2,
}
"""The arms that each recipe stands for."""
ARMS = ("hybrid", "oracle-free", *CONTROLS, *MECHANISMS, *BASELINES, *PROMPTED, *INFERENCE, *LATENT_SEEK, *V1, *V2)
"""Every arm that can be named."""


@dataclass(frozen=True)
class HybridConfig:
    """Settings of the arms.

    Raises:
        ProbeError: if an arm is unknown or a setting is out of range.
    """

    arms: tuple[str, ...] = ("oracle-free", *CONTROLS, *MECHANISMS, *BASELINES)
    """Names of the arms to run beside base, thinking and hybrid. The name of a recipe (probe, oracle-free, inference,
    v1, v2) stands for all arms of that recipe."""
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
    tuned_on: int = 60
    """Number of validation problems on which each arm of the recipe inference chooses its text, budget or strength."""
    budgets: tuple[int, ...] = ()
    """Numbers of thinking tokens that the arms budget and budget-on-thinking try. None: the median and the 90th
    percentile of what the model that writes the answer thinks on validation problems, without answers that were cut."""
    waits: tuple[str, ...] = ("Wait", "\n\nWait,", "\n\nAlternatively,")
    """Texts that they try to extend the thinking with. If the tokenizer can write none of them, the four texts that
    most sentences of the thinking model's traces begin with."""
    endings: tuple[str, ...] = ("", "\nFinal answer:")
    """Texts that they try after the closing tag, to stop the thinking."""
    instructions: tuple[str, ...] = (
        "I should think step by step.",
        "I should think step by step and check each step before I answer.",
        "I should answer the question as exactly as I can.",
    )
    """Texts that the arms intervention and intervention-on-thinking try at the beginning of the thinking. If the
    tokenizer can write none of them, the same four texts of the traces."""
    additions: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    """Strengths that the arms addition and addition-on-thinking try, as factors of a difference of means."""
    addition_texts: int = 100
    """Number of train problems to which both models' answers give that difference."""
    opening_tokens: int = 32
    """Number of tokens that the thinking model writes in the arm thinking-opening."""
    v1_strengths: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    """Strengths that the search of the recipe v1 tries; the default is published for its largest models."""
    v1_windows: tuple[int, ...] = (0,)
    """Numbers of last tokens that the search of the recipe v1 shifts; 0 shifts all tokens, including the prompt."""

    def __post_init__(self) -> None:
        for name in self.arms:
            if name not in ARMS and name not in RECIPES:
                raise ProbeError(f"hybrid.arms has the unknown arm {name!r}; {nearest(name, [*ARMS, *RECIPES])}")
        check_least("hybrid", self, rerank_among=1, speculative_tokens=1, shots=1)
        check_least("hybrid", self, tuned_on=1, addition_texts=1, opening_tokens=1)
        for name in ("waits", "endings", "instructions", "additions"):
            if not getattr(self, name):
                raise ProbeError(f"hybrid.{name} is empty; give it at least one entry")
        if wrong := [tokens for tokens in self.budgets if tokens < 1]:
            raise ProbeError(f"hybrid.budgets has {wrong[0]}; a budget is at least 1 token")
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


@dataclass(frozen=True)
class LatentSeekConfig:
    """Settings of the arms latent-seek and latent-seek-grade. The defaults are the published values.

    Raises:
        ProbeError: if a setting is out of range.
    """

    share: float = 0.1
    """Share of the first answer's tokens, from its beginning, whose latent states are updated; one token at least."""
    most: int = 300
    """Maximum number of tokens whose latent states are updated."""
    lr: float = 0.03
    """Learning rate of Adam."""
    updates: int = 10
    """Maximum number of updates; 0 leaves the base model's answer as it is."""
    stop_above: float = -0.2
    """An answer with a reward above this value is kept. Rewards lie between -1 and 0."""
    reward: Literal["verifiers", "confidence"] = "verifiers"
    """How the base model rewards its answers in the arm latent-seek: by what it says when it is asked to verify them,
    or by the probabilities of their tokens, for models that cannot follow an instruction."""
    verdict_tokens: int = 4096
    """Maximum number of tokens of a verification."""

    def __post_init__(self) -> None:
        check_above_zero("latent_seek", self, "share", "lr")
        check_least("latent_seek", self, most=1, updates=0, verdict_tokens=1)
        if self.share > 1:
            raise ProbeError(f"latent_seek.share is {self.share}; it must be at most 1")
