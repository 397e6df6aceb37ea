"""The settings of ``probe discover``: one frozen dataclass for each stage, which is the YAML section of that name."""

from dataclasses import dataclass, field

from probe.config import byte_size, check_least, check_seeds
from probe.errors import ProbeError
from probe.models import DeviceNames, ModelConfig
from probe.pipeline.checks import check_inputs
from probe.pipeline.run.config import RolloutConfig, apply_limit, short_name
from probe.servers import ServersConfig, check_urls
from probe.taxonomy import FalsifyConfig, TaxonomyConfig


@dataclass(frozen=True)
class DiscoverSizesConfig:
    """Numbers of problems of each split. If a problem set has fewer, all of them are used."""

    train: int = 400
    """Number of training problems; the behaviours are learned from their traces."""
    validation: int = 120
    """Number of validation problems; site and size are chosen on them, and the report is about them."""
    limit: int | None = field(default=None, metadata={"later": True})
    """Maximum number of problems of every split, for a first try; larger numbers above are lowered to it."""

    def __post_init__(self) -> None:
        check_least("sizes", self, train=1, validation=1, limit=1)
        apply_limit(self, self.limit)


@dataclass(frozen=True)
class JudgeConfig:
    """The LLM that names the behaviours and scores the names; without one, names are lists of distinctive words."""

    model: str
    """A chat model: its folder or hub id or, with ``url``, its name on the server."""
    url: str | None = None
    """URL of an OpenAI-compatible server, such as ``http://localhost:8000/v1``; None runs the model on this machine."""
    key_env: str = "OPENAI_API_KEY"
    """Environment variable with the API key of the server."""
    sample: int = 200
    """Maximum number of sentences that are judged for each behaviour and score; a fifth of them are its own."""
    max_new_tokens: int = 256
    """Maximum number of tokens of an answer of a judge on this machine."""

    def __post_init__(self) -> None:
        check_least("judge", self, sample=5, max_new_tokens=1)


@dataclass(frozen=True)
class DiscoverConfig:
    """Settings of ``probe discover``."""

    pair: str | None = None
    """Name of a pair (see ``probe pairs``) whose thinking model is used; instead of ``thinking``."""
    thinking: ModelConfig | None = None
    """The thinking model, if no pair is named."""
    problems: str | None = None
    """Name of a problem set, or the path of a JSONL file; None takes the problem set of the pair."""
    grader: str | None = field(default=None, metadata={"later": True})
    """How answers are graded: ``exact``, ``numeric``, ``math-verify`` or ``close``; None: as the set says."""
    traces: str | None = field(default=None, metadata={"later": True})
    """Folder of imported traces (``probe traces import``), which replace the model's own traces; None decodes the
    traces."""
    device: DeviceNames = "auto"
    """Device of the model, such as ``cpu`` or ``cuda:0``; ``auto`` takes a CUDA GPU if there is one.
    ``balanced``, several GPUs and a device for each module are as in the settings of a run."""
    memory: str | None = None
    """Memory that work may take on a device besides the weights, such as ``40GB``; None takes half of what is free.
    Results do not depend on it."""
    dtype: str = "float32"
    """Number format of the weights, such as ``bfloat16``."""
    seed: int = 0
    """Seeds everything random except the taxonomy, which has seeds of its own."""
    thinking_url: tuple[str, ...] = field(default=(), metadata={"later": True})
    """Addresses of OpenAI-compatible servers of the model, such as ``http://localhost:8000/v1``, which write its
    traces; ``#NAME`` at the end gives the server's name for the model. None: traces are decoded here."""
    servers: ServersConfig = field(default_factory=ServersConfig, metadata={"later": True})
    shown: int = 40
    """Number of validation traces that the report shows."""
    sizes: DiscoverSizesConfig = field(default_factory=DiscoverSizesConfig)
    decoding: RolloutConfig = field(default_factory=RolloutConfig)
    taxonomy: TaxonomyConfig = field(
        default_factory=lambda: TaxonomyConfig(rivals=("spherical-kmeans", "pca-kmeans", "agglomerative"))
    )
    falsify: FalsifyConfig = field(default_factory=FalsifyConfig)
    judge: JudgeConfig | None = None

    def __post_init__(self) -> None:
        byte_size(self.memory)
        if (self.pair is None) == (self.thinking is None):
            raise ProbeError(
                "name one model: a pair (--pair), whose thinking model is used, or a thinking model (--thinking)"
            )
        check_least("", self, shown=0)
        check_urls("thinking_url", self.thinking_url)
        check_seeds("seed", [self.seed])

    def check(self) -> None:
        """Refuse inputs that are not there; this imports no library that runs models."""
        check_inputs(self)

    @property
    def name(self) -> str:
        """Name of the discovery: that of its pair or else of its thinking model, without folders and endings."""
        return short_name(self.pair or (self.thinking.path if self.thinking else ""))
