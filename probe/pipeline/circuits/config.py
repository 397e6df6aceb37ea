"""The settings of ``probe circuits``."""

from dataclasses import dataclass, field

from probe.circuits import ABLATIONS, METHODS, METRICS
from probe.config import byte_size, check_least, check_seeds, nearest
from probe.errors import ProbeError
from probe.pipeline.checks import check_inputs


@dataclass(frozen=True)
class CircuitConfig:
    """All settings of ``probe circuits``."""

    pair: str
    """The pair: the name of a bundled or published pair, or the path of a pair.yaml."""
    behaviour: str
    """The behaviour: a sentence type, a counter as SCHEME:NAME, or a category's number or label if ``run`` is given."""
    run: str | None = None
    """The folder of a run; ``behaviour`` may name a category of its taxonomy."""
    traces: str | None = field(default=None, metadata={"later": True})
    """The folder of imported traces (``probe traces import``), which replace the model's own traces."""
    model: str = "thinking"
    """The model whose circuit is found: thinking or base."""
    problems: int = 150
    """The largest number of train problems whose traces give the pairs of texts."""
    test: int = 100
    """The largest number of test problems on which ablation is measured."""
    max_new_tokens: int | None = field(default=None, metadata={"later": True})
    """The largest number of tokens of an answer; None takes the limit of the pair."""
    pairs: int = 48
    """The largest number of pairs of texts."""
    method: str = "eap-ig-inputs"
    """The attribution method: eap, eap-ig-inputs, eap-ig-activations or exact."""
    metric: str = "logit-difference"
    """The metric that edges are scored by: logit-difference or divergence."""
    steps: int = 8
    """The number of points at which integrated gradients are evaluated."""
    window: int | None = None
    """The number of tokens at the end of each text at which edges are scored; None for all."""
    keeps: float = 0.8
    """The circuit is the smallest that keeps this share of the metric, on the half of the pairs that it is found on."""
    heads: int = 3
    """The number of the circuit's strongest heads that are ablated."""
    ablation: str = "resample"
    """The ablation: resample or mean (from the model's traces of train problems), or zero."""
    where: str = "starts"
    """The tokens at which heads are ablated: starts (those that precede a sentence) or everywhere."""
    draws: int = 5
    """The number of random sets of other heads of the same layers that are ablated for comparison."""
    seed: int = 0
    """The seed of the choice of pairs, the random heads and the resampling."""
    device: str = "auto"
    """The device: auto, cpu, cuda, cuda:N or mps."""
    memory: str | None = None
    """Memory that work may take on a device besides the weights, such as ``40GB``; None takes half of what is free.
    Results do not depend on it."""
    dtype: str = "float32"
    """The data type of the weights."""
    shares: tuple[float, ...] = field(default=(0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0))
    """The sizes of circuits at which faithfulness is measured, as shares of all edges."""

    def __post_init__(self) -> None:
        byte_size(self.memory)
        check_least("", self, problems=1, test=1, max_new_tokens=1, pairs=4, steps=1, heads=1, draws=1)
        if self.window is not None:
            check_least("", self, window=1)
        check_seeds("seed", [self.seed])
        for name, known in (("ablation", ABLATIONS), ("method", METHODS), ("metric", METRICS)):
            if (said := getattr(self, name)) not in known:
                raise ProbeError(f"{name} is {said!r}; {nearest(said, known)}")
        if self.where not in ("starts", "everywhere"):
            raise ProbeError(f"where is {self.where!r}; use starts or everywhere")
        if self.model not in ("thinking", "base"):
            raise ProbeError(f"model is {self.model!r}; use thinking or base")

    def check(self) -> None:
        """Refuse inputs that are not there; this imports no library that runs models."""
        check_inputs(self)
