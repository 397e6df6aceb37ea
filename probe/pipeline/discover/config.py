"""The configuration of ``probe discover``: one frozen dataclass a stage, which is the YAML section of the same name."""

from dataclasses import dataclass, field

from probe.config import check_least, check_seeds
from probe.errors import ProbeError
from probe.models import ModelConfig
from probe.pipeline.run.config import DecodingConfig, short_name
from probe.taxonomy import FalsifyConfig, TaxonomyConfig


@dataclass(frozen=True)
class DiscoverSizesConfig:
    """How many problems of each split are used."""

    train: int = 400
    """Problems from whose traces the behaviours are learned."""
    validation: int = 120
    """Problems on which site and size are chosen, and everything is scored and shown."""

    def __post_init__(self) -> None:
        check_least("sizes", self, train=1, validation=1)


@dataclass(frozen=True)
class JudgeConfig:
    """Who names the behaviours and scores the names. Without one, labels are made of distinctive words."""

    model: str
    """A chat model: a folder or hub id; or, with ``url``, what the server calls it."""
    url: str | None = None
    """The base of an OpenAI-compatible interface, such as ``http://localhost:8000/v1``."""
    key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the server's key."""
    sample: int = 200
    """The most sentences a score asks about, for each behaviour; a fifth of them are its own."""
    max_new_tokens: int = 256
    """The longest answer of a model on this machine."""

    def __post_init__(self) -> None:
        check_least("judge", self, sample=5, max_new_tokens=1)


@dataclass(frozen=True)
class DiscoverConfig:
    """Everything ``probe discover`` can be told."""

    pair: str | None = None
    """A bundled pair (``probe pairs``) whose thinking model is meant, or"""
    thinking: ModelConfig | None = None
    """a thinking model of your own."""
    problems: str | None = None
    """A problem set's name or a JSONL file; None takes the pair's own."""
    device: str = "auto"
    dtype: str = "float32"
    seed: int = 0
    shown: int = 40
    """Traces that the report shows."""
    sizes: DiscoverSizesConfig = field(default_factory=DiscoverSizesConfig)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    taxonomy: TaxonomyConfig = field(
        default_factory=lambda: TaxonomyConfig(rivals=("spherical-kmeans", "pca-kmeans", "agglomerative"))
    )
    falsify: FalsifyConfig = field(default_factory=FalsifyConfig)
    judge: JudgeConfig | None = None

    def __post_init__(self) -> None:
        if (self.pair is None) == (self.thinking is None):
            raise ProbeError("name one model: either a pair, whose thinking model is meant, or a thinking model")
        check_least("", self, shown=0)
        check_seeds("seed", [self.seed])

    @property
    def name(self) -> str:
        """What the discovery is called: its pair, or else its thinking model, without folders and endings."""
        return short_name(self.pair or (self.thinking.path if self.thinking else ""))
