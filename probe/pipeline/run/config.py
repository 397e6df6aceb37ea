"""The settings of a run: one frozen dataclass for each stage, which is the YAML section of the same name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.config import byte_size, check_least, check_seeds, from_dict
from probe.engine import engine_of
from probe.errors import ProbeError
from probe.hybrid import DistilConfig, HybridConfig, LatentSeekConfig
from probe.models import GREEDY, DeviceNames, ModelConfig, PairSampling, Sampling
from probe.pipeline.checks import check_inputs
from probe.pipeline.run.recipe import with_recipe
from probe.problems import SPLITS
from probe.servers import ServersConfig, check_urls
from probe.steering import PolicyConfig, SteeringConfig
from probe.taxonomy import TaxonomyConfig

if TYPE_CHECKING:
    from probe.models import Model, Pair


@dataclass(frozen=True)
class SizesConfig:
    """Numbers of problems of each split. If a problem set has fewer, all of them are used."""

    train: int = 400
    """Number of training problems; the taxonomy and the vectors are learned from their traces."""
    validation: int = 120
    """Number of validation problems; sizes, sites and training steps are chosen on them."""
    test: int = 300
    """Number of test problems; the report is about them, and nothing is chosen on them."""
    limit: int | None = field(default=None, metadata={"later": True})
    """Maximum number of problems of every split, for a first try; larger numbers above are lowered to it."""

    def __post_init__(self) -> None:
        check_least("sizes", self, train=1, validation=1, test=1, limit=1)
        apply_limit(self, self.limit)


def apply_limit(sizes: Any, limit: int | None) -> None:
    """Lower each number of problems to a limit. This is done once, so that the settings show the effective numbers."""
    for split in SPLITS:
        if limit is not None and getattr(sizes, split, 0) > limit:
            object.__setattr__(sizes, split, limit)  # the dataclass is frozen


@dataclass(frozen=True)
class RolloutConfig:
    """Settings of the thinking model's traces."""

    max_new_tokens: int | None = None
    """Maximum number of tokens of an answer; None takes the limit of the pair."""
    batch_size: int = 100
    """Number of answers decoded together; a resumed run repeats at most this many."""
    thinking: Sampling | None = field(default=None, metadata={"later": True})
    """How the thinking model is sampled: ``temperature``, ``top_p``, ``top_k`` and ``min_p``; a temperature of 0 is
    greedy. None: as its ``generation_config.json`` says."""

    def __post_init__(self) -> None:
        check_least("decoding", self, max_new_tokens=1, batch_size=1)

    def of_thinking(self, model: "Model") -> Sampling:
        """How the thinking model is sampled."""
        return model.own_sampling if self.thinking is None else self.thinking


@dataclass(frozen=True)
class DecodingConfig(RolloutConfig):
    """Settings of decoding, the same for both models and every arm."""

    base: Sampling | None = field(default=None, metadata={"later": True})
    """How the base model is sampled, alone and in every arm. None: greedy, or as the thinking model if both have the
    same weights."""
    samples: int = field(default=1, metadata={"later": True})
    """Number of answers that each sampled model or arm gives to each test problem. Accuracies are means over them.
    Train and validation problems have one trace each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least("decoding", self, samples=1)

    def sampling(self, pair: "Pair") -> PairSampling:
        """How the models of a pair are sampled.

        Raises:
            ProbeError: for several samples that would all be equal.
        """
        thinking = self.of_thinking(pair.thinking)
        same = pair.config.base.same_weights == pair.config.thinking.same_weights
        base = self.base or (thinking if same else GREEDY)
        if self.samples > 1 and base.greedy and thinking.greedy:
            raise ProbeError(
                f"decoding.samples is {self.samples}, but greedy samples would be equal; give a temperature "
                "(--temperature), or one sample"
            )
        return PairSampling(base, thinking, self.samples)


@dataclass(frozen=True)
class RunConfig:
    """Settings of ``probe run``."""

    pair: str | None = None
    """Name of a bundled or published pair (see ``probe pairs``), or the path of a pair.yaml; instead of ``base`` and
    ``thinking``."""
    base: ModelConfig | None = None
    """The base model, if no pair is named."""
    thinking: ModelConfig | None = None
    """The thinking model, if no pair is named."""
    problems: str | None = None
    """Name of a problem set, or the path of a JSONL file; None takes the problem set of the pair."""
    grader: str | None = field(default=None, metadata={"later": True})
    """How answers are graded: ``exact``, ``numeric``, ``math-verify`` or ``close``; None: as the set says."""
    traces: str | None = field(default=None, metadata={"later": True})
    """Folder of imported traces (``probe traces import``), which replace the thinking model's own traces on train and
    validation problems; None decodes the traces. Test traces are always decoded, so that all arms are compared
    fairly."""
    device: DeviceNames = field(default="auto", hash=False)
    """Device of both models, such as ``cpu`` or ``cuda:0``; ``auto`` takes a CUDA GPU if there is one. ``balanced``
    divides the blocks of a model between all GPUs, ``cuda:0,cuda:1`` between these; a mapping gives a device for
    each module, as in accelerate's ``device_map``."""
    base_device: DeviceNames | None = field(default=None, hash=False)
    """Device of the base model, if it differs from ``device``."""
    thinking_device: DeviceNames | None = field(default=None, hash=False)
    """Device of the thinking model, if it differs from ``device``."""
    memory: str | None = None
    """Memory that work may take on a device besides the weights, such as ``40GB``; None takes half of what is free.
    Results do not depend on it."""
    dtype: str = "float32"
    """Number format of the weights of both models, such as ``bfloat16``."""
    seed: int = 0
    """Seeds everything random except the taxonomy and the vectors, which have seeds of their own."""
    engine: str = "here"
    """Who does the work: ``here``; ``processes:N``, N processes of this machine, each with a GPU if there are GPUs; or
    ``ray[:ADDRESS]``, the machines of a Ray cluster. Each process loads the pair; results are the same."""
    thinking_url: tuple[str, ...] = field(default=(), metadata={"later": True})
    """Addresses of OpenAI-compatible servers of the thinking model, such as ``http://localhost:8000/v1``, which write
    its traces; ``#NAME`` at the end gives the server's name for the model. None: traces are decoded here."""
    base_url: tuple[str, ...] = field(default=(), metadata={"later": True})
    """Addresses of servers of the base model, which write its traces. Arms are always decoded here."""
    servers: ServersConfig = field(default_factory=ServersConfig, metadata={"later": True})
    curve: tuple[int, ...] = ()
    """Numbers of train traces for a learning curve. For each number, the hybrid and every other arm of the run that is
    learned from traces are learned again from the first that many traces."""
    shown: int = 12
    """Number of test problems whose traces the report shows."""
    look: int = field(default=30, metadata={"later": True})
    """Number of validation problems that both models answer before the first stage, to show early what is wrong with
    their answers; 0 skips the look."""
    anyway: bool = field(default=False, metadata={"later": True})
    """Continue even if a verdict of the look would stop the run."""
    sizes: SizesConfig = field(default_factory=SizesConfig)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    taxonomy: TaxonomyConfig = field(default_factory=TaxonomyConfig)
    steering: SteeringConfig = field(default_factory=SteeringConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    distil: DistilConfig = field(default_factory=DistilConfig)
    hybrid: HybridConfig = field(default_factory=HybridConfig)
    latent_seek: LatentSeekConfig = field(default_factory=LatentSeekConfig, metadata={"later": True})

    def __post_init__(self) -> None:
        byte_size(self.memory)
        if self.pair is None and (self.base is None or self.thinking is None):
            raise ProbeError("no models given: name a pair (--pair), or both models (--base and --thinking)")
        if self.pair is not None and (self.base is not None or self.thinking is not None):
            raise ProbeError("both a pair and single models given: name a pair, or base and thinking")
        check_least("", self, shown=0, look=0)
        check_urls("thinking_url", self.thinking_url)
        check_urls("base_url", self.base_url)
        engine = engine_of(self.engine)
        named = (self.device, self.base_device, self.thinking_device)
        placed = [each for each in named if each and (":" in each or not isinstance(each, str) or each == "balanced")]
        if placed and (engine.kind == "ray" or engine.n > 1):
            raise ProbeError(
                f"the engine {self.engine} gives each process a GPU of its own, but a model is to be on {placed[0]}; "
                "leave out the device, or use the engine here"
            )
        check_seeds("seed", [self.seed])
        if wrong := [n for n in self.curve if not 1 <= n <= self.sizes.train]:
            raise ProbeError(
                f"curve has {wrong[0]} traces, but sizes.train is {self.sizes.train}; give numbers from 1 to that"
            )

    @staticmethod
    def filled(settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings as in a YAML file, completed by those of the recipe that they name; see :func:`with_recipe`."""
        return with_recipe(settings)

    @classmethod
    def of_recipe(cls, recipe: str, **settings: Any) -> "RunConfig":
        """Make the settings of a recipe.

        Args:
            recipe: its name, such as ``v2-published``.
            **settings: settings as in a YAML file, which win over those of the recipe.

        Raises:
            ProbeError: if there is no such recipe, or a setting is wrong.

        >>> RunConfig.of_recipe("v2-published", pair="orz-7b", sizes={"test": 100}).taxonomy.sites
        ('resid_post.20',)
        """
        return from_dict(cls, with_recipe({**settings, "recipe": recipe}), f"recipe {recipe}")

    def check(self) -> None:
        """Refuse inputs that are not there; this imports no library that runs models."""
        check_inputs(self)

    @property
    def name(self) -> str:
        """Name of the run: that of its pair or else of its thinking model, without folders and endings.

        >>> RunConfig(base=ModelConfig("org/base"), thinking=ModelConfig("org/thinking-1.5")).name
        'thinking-1.5'
        """
        return short_name(self.pair or (self.thinking.path if self.thinking else ""))


def short_name(named: str) -> str:
    """Shorten the name of a pair or a model: without folders and endings.

    >>> short_name("bundled:tiny-rl"), short_name("./mine/pair.yaml")
    ('tiny-rl', 'pair')
    """
    name = Path(named.removeprefix("bundled:")).name or named
    return name.removesuffix(".yaml").removesuffix(".yml").removesuffix(".gguf")
