"""The settings of ``probe diff``."""

from dataclasses import dataclass, field

from probe.config import as_pattern, byte_size, check_least, check_seeds
from probe.diff import OF_SAE, check_parts, usual_parts
from probe.errors import ProbeError
from probe.models import DeviceNames, ModelConfig, PairConfig, find_pair
from probe.pipeline.checks import check_inputs
from probe.pipeline.run.config import short_name


@dataclass(frozen=True)
class DiffConfig:
    """All settings of ``probe diff``."""

    pair: str | None = None
    """The pair: the name of a bundled or published pair, or the path of a pair.yaml; instead of ``base`` and
    ``thinking``."""
    base: ModelConfig | None = None
    """The base model, if no pair is named."""
    thinking: ModelConfig | None = None
    """The thinking model, if no pair is named."""
    problems: str | None = None
    """The problem set: its name or the path of a JSONL file; None takes the problem set of the pair."""
    grader: str | None = field(default=None, metadata={"later": True})
    """How answers are graded: exact, numeric, math-verify or close; None: as the set says."""
    behaviour: str | None = None
    """The behaviour that heads and directions are compared for: a sentence type, a counter as SCHEME:NAME, or a
    category's number or label if ``run`` is given; None for the sentence type, or the habit where sentences have no
    types, whose share rose most in training."""
    sentence: str | None = None
    """A regular expression: the behaviour is a sentence in which it is found. Instead of ``behaviour``."""
    run: str | None = None
    """The folder of a run or a discovery; ``behaviour`` may name a category of its taxonomy."""
    traces: str | None = field(default=None, metadata={"later": True})
    """The folder of imported traces (``probe traces import``), which replace the model's own traces."""
    parts: tuple[str, ...] = ()
    """The parts that are computed; empty for all, of which ``dictionary`` needs an SAE."""
    sae: str | None = None
    """An SAE or transcoder whose latents are compared in both models: a folder, or RELEASE/SAE_ID."""
    train: int = 80
    """The largest number of train problems from which the texts come: the thinking model solves them."""
    max_new_tokens: int | None = field(default=None, metadata={"later": True})
    """The largest number of tokens of an answer; None takes the limit of the pair."""
    n_pairs: int = 48
    """The largest number of pairs of texts."""
    context: int = 512
    """The largest number of tokens of a text of a pair, prompt included; longer ones are cut on the left."""
    layer: int | None = None
    """The layer at which states are compared (by the SAE over both models and by the mean difference), counted from 0;
    None for the middle layer."""
    series: tuple[str, ...] = ()
    """The folders of checkpoint series, as NAME=FOLDER; runs that differ only in their seed share a NAME."""
    heads: int = 3
    """The number of heads, those that grew most, that are ablated and scaled in the thinking model; 0 for none."""
    factors: tuple[float, ...] = (0.5, 1.3)
    """The factors that these heads' output is scaled by."""
    test: int = 60
    """The largest number of test problems on which ablation and scaling are measured."""
    draws: int = 3
    """The number of random sets of other heads of the same layers that are changed for comparison."""
    seed: int = 0
    """The seed of everything that is random."""
    device: DeviceNames = "auto"
    """The device: auto, cpu, cuda, cuda:N or mps; ``balanced``, several GPUs and a device for each module are as in the
    settings of a run."""
    memory: str | None = None
    """Memory that work may take on a device besides the weights, such as ``40GB``; None takes half of what is free.
    Results do not depend on it."""
    dtype: str = "float32"
    """The data type of the weights."""

    def __post_init__(self) -> None:
        byte_size(self.memory)
        if self.pair is None and (self.base is None or self.thinking is None):
            raise ProbeError("no models given: name a pair (--pair), or both models (--base and --thinking)")
        if self.pair is not None and (self.base is not None or self.thinking is not None):
            raise ProbeError("both a pair and single models given: name a pair, or base and thinking")
        check_least("", self, train=4, max_new_tokens=1, n_pairs=8, context=8, heads=0, test=1, draws=1, layer=0)
        check_seeds("seed", [self.seed])
        object.__setattr__(self, "parts", check_parts(self.parts or usual_parts(self.sae)))
        if OF_SAE in self.parts and self.sae is None:
            raise ProbeError(f"the part {OF_SAE} compares the latents of an SAE: name one (--sae)")
        if self.sentence is not None:
            as_pattern(self.sentence)
            if self.behaviour is not None:
                raise ProbeError("both a behaviour and a pattern given: name one (--behaviour or --sentence)")
        for each in self.series:
            if not all(each.partition("=")[::2]):
                raise ProbeError(f"series is {each!r}: write NAME=FOLDER, as rl=runs/series/rl")

    def check(self) -> None:
        """Refuse inputs that are not there; this imports no library that runs models."""
        check_inputs(self)

    @property
    def name(self) -> str:
        """The name of the pair or else of the thinking model, without folders and endings."""
        return short_name(self.pair or (self.thinking.path if self.thinking else ""))

    @property
    def models(self) -> PairConfig:
        """The settings of the pair.

        Raises:
            ProbeError: if there is no pair of that name.
        """
        if self.pair is not None:
            return find_pair(self.pair)
        assert self.base is not None and self.thinking is not None
        return PairConfig(self.name, self.base, self.thinking)
