"""The settings of ``probe circuits``."""

from dataclasses import dataclass, field
from pathlib import Path

from probe.circuits import ABLATIONS, METHODS, METRICS
from probe.config import byte_size, check_least, check_seeds, nearest
from probe.errors import ProbeError
from probe.models import ModelConfig
from probe.pipeline.checks import check_behaviour, check_inputs
from probe.pipeline.run.config import short_name


@dataclass(frozen=True)
class CircuitConfig:
    """All settings of ``probe circuits``."""

    pair: str | None = None
    """The pair: the name of a bundled or published pair, or the path of a pair.yaml; instead of ``thinking``."""
    behaviour: str | None = None
    """The behaviour: a sentence type, a counter as SCHEME:NAME, or a category's number or label if ``run`` is given."""
    sentence: str | None = None
    """A regular expression, instead of ``behaviour``: sentences in which it is found show the behaviour."""
    run: str | None = None
    """The folder of a run or a discovery; ``behaviour`` may name a category of its taxonomy."""
    pairs: str | None = None
    """A JSONL file of pairs of texts, instead of a behaviour: objects with clean, corrupt, right and wrong."""
    base: ModelConfig | None = None
    """The base model, if no pair is named; needed only for ``model: base``."""
    thinking: ModelConfig | None = None
    """The thinking model, if no pair is named; it needs no base model."""
    problems: str | None = None
    """Name of a problem set, or the path of a JSONL file; None takes the problem set of the pair."""
    grader: str | None = field(default=None, metadata={"later": True})
    """How answers are graded: exact, numeric, math-verify or close; None: as the set says."""
    traces: str | None = field(default=None, metadata={"later": True})
    """The folder of imported traces (``probe traces import``), which replace the model's own traces."""
    model: str = "thinking"
    """The model whose circuit is found: thinking or base."""
    train: int = 150
    """The largest number of train problems whose traces give the pairs of texts."""
    test: int = 100
    """The largest number of test problems on which ablation is measured; 0 measures it on pairs alone."""
    max_new_tokens: int | None = field(default=None, metadata={"later": True})
    """The largest number of tokens of an answer; None takes the limit of the pair."""
    n_pairs: int = 48
    """The largest number of pairs of texts."""
    context: int = 512
    """The largest number of tokens of a text, prompt included; longer ones are cut after their first four tokens."""
    method: str = "eap-ig-inputs"
    """The attribution method: eap, eap-ig-inputs, eap-ig-activations or exact."""
    metric: str = "logit-difference"
    """The metric that edges are scored by: logit-difference or divergence."""
    steps: int = 8
    """The number of points at which integrated gradients are evaluated."""
    window: int | None = None
    """The number of tokens at the end of each text at which edges are scored and cut; None for all."""
    keeps: float = 0.8
    """The circuit is the smallest that keeps this share of the metric, on the half of the pairs that it is found on."""
    heads: int = 3
    """The number of the circuit's strongest heads that are ablated."""
    ablation: str = "resample"
    """The ablation: resample or mean (from the model's traces of train problems, or from pairs that are given), or
    zero."""
    where: str = "starts"
    """The tokens at which heads are ablated: starts (those that precede a sentence) or everywhere, as always for pairs
    that are given."""
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
    sae: tuple[str, ...] = field(default=(), metadata={"later": True})
    """SAEs and transcoders of the model whose latents are scored: folders, or RELEASE/SAE_ID of SAELens' registry."""
    shares: tuple[float, ...] = field(default=(0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0))
    """The sizes of circuits at which faithfulness is measured, as shares of all edges."""

    def __post_init__(self) -> None:
        byte_size(self.memory)
        if (self.pair is None) == (self.thinking is None and self.base is None):
            raise ProbeError(
                "name one model: a pair (--pair), or a thinking model (--thinking), which needs no base model"
            )
        if self.pair is None and self.thinking is None:
            raise ProbeError("a base model alone was given: name it as --thinking, or give its thinking model too")
        if self.pairs is None:
            check_behaviour(self.behaviour, self.sentence)
        elif given := [
            name
            for name in ("behaviour", "sentence", "run", "traces", "problems", "grader")
            if getattr(self, name) is not None
        ]:
            raise ProbeError(f"pairs of texts need no {given[0]}: leave out --{given[0]}, or --pairs")
        if self.run is not None and self.behaviour is None:
            raise ProbeError("a run was given for its categories: name one of them (--behaviour)")
        check_least("", self, train=1, test=0, max_new_tokens=1, n_pairs=4, context=8, steps=1, heads=1, draws=1)
        if self.window is not None:
            check_least("", self, window=1)
        check_seeds("seed", [self.seed])
        if not 0 < self.keeps <= 1:
            raise ProbeError(f"keeps is {self.keeps}; it is a share of the metric, above 0 and at most 1")
        shares = list(self.shares)
        if not shares or shares != sorted({*shares}) or not 0 < shares[0] <= shares[-1] <= 1:
            raise ProbeError(f"shares is {shares}; give ascending shares of all edges, above 0 and at most 1")
        for name, known in (("ablation", ABLATIONS), ("method", METHODS), ("metric", METRICS)):
            if (said := getattr(self, name)) not in known:
                raise ProbeError(f"{name} is {said!r}; {nearest(said, known)}")
        if self.where not in ("starts", "everywhere"):
            raise ProbeError(f"where is {self.where!r}; use starts or everywhere")
        if self.model not in ("thinking", "base"):
            raise ProbeError(f"model is {self.model!r}; use thinking or base")
        if self.model == "base" and self.pair is None and self.base is None:
            raise ProbeError("the circuit of the base model is asked for, but no base model is given (--base)")

    def check(self) -> None:
        """Refuse inputs that are not there; this imports no library that runs models."""
        check_inputs(self)
        if self.pairs is not None and not Path(self.pairs).expanduser().is_file():
            raise ProbeError(f"there is no file {self.pairs} (--pairs)")

    @property
    def name(self) -> str:
        """A name for the usual folder: the behaviour, or the file of the pairs."""
        if self.pairs is not None:
            return Path(self.pairs).stem
        said = "".join(c if c.isalnum() else "-" for c in self.behaviour or self.sentence or "").strip("-")
        return said or short_name(self.pair or "pattern")
