"""The configuration of a run: one frozen dataclass a stage, which is the YAML section of the same name."""

from dataclasses import dataclass, field
from pathlib import Path

from probe.config import check_least, check_seeds
from probe.errors import ProbeError
from probe.hybrid import DistilConfig, HybridConfig
from probe.models import ModelConfig
from probe.steering import PolicyConfig, SteeringConfig
from probe.taxonomy import TaxonomyConfig


@dataclass(frozen=True)
class SizesConfig:
    """How many problems of each split are used."""

    train: int = 400
    """Problems whose traces the taxonomy and the vectors are learned from."""
    validation: int = 120
    """Problems on which sizes and epochs are chosen."""
    test: int = 300
    """Problems the report is about; nothing is chosen on them."""

    def __post_init__(self) -> None:
        check_least("sizes", self, train=1, validation=1, test=1)


@dataclass(frozen=True)
class DecodingConfig:
    """How both models and the hybrid are decoded."""

    max_new_tokens: int | None = None
    """Limit of emitted tokens; None takes the pair's."""
    batch_size: int = 100
    """Problems decoded together: the unit of work that a kill can lose."""

    def __post_init__(self) -> None:
        check_least("decoding", self, max_new_tokens=1, batch_size=1)


@dataclass(frozen=True)
class RunConfig:
    """Everything ``probe run`` can be told."""

    pair: str | None = None
    """A bundled pair (``probe pairs``), or"""
    base: ModelConfig | None = None
    """a base model and"""
    thinking: ModelConfig | None = None
    """a thinking model of your own."""
    problems: str | None = None
    """A problem set's name or a JSONL file; None takes the pair's own."""
    device: str = "auto"
    dtype: str = "float32"
    seed: int = 0
    workers: int = 1
    """Processes that run arms at the same time; more than one pays for small models on a CPU. Each loads the pair."""
    shown: int = 12
    """Problems whose traces the report shows."""
    sizes: SizesConfig = field(default_factory=SizesConfig)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    taxonomy: TaxonomyConfig = field(default_factory=TaxonomyConfig)
    steering: SteeringConfig = field(default_factory=SteeringConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    distil: DistilConfig = field(default_factory=DistilConfig)
    hybrid: HybridConfig = field(default_factory=HybridConfig)

    def __post_init__(self) -> None:
        if self.pair is None and (self.base is None or self.thinking is None):
            raise ProbeError("no models given: name a bundled pair (pair) or both of base and thinking")
        if self.pair is not None and (self.base is not None or self.thinking is not None):
            raise ProbeError("both a pair and single models given: name either pair, or base and thinking")
        check_least("", self, shown=0, workers=1)
        check_seeds("seed", [self.seed])

    @property
    def name(self) -> str:
        """What the run is called: its pair, or else its thinking model, without folders and endings.

        >>> RunConfig(base=ModelConfig("org/base"), thinking=ModelConfig("org/thinking-1.5")).name
        'thinking-1.5'
        """
        return short_name(self.pair or (self.thinking.path if self.thinking else ""))


def short_name(named: str) -> str:
    """A pair's or a model's name without folders and endings.

    >>> short_name("bundled:tiny-rl"), short_name("./mine/pair.yaml")
    ('tiny-rl', 'pair')
    """
    name = Path(named.removeprefix("bundled:")).name or named
    return name.removesuffix(".yaml").removesuffix(".yml").removesuffix(".gguf")
