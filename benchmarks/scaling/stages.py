"""The stages of a run on small random models of a realistic vocabulary, with what the formulas of `probe plan` say."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config

from benchmarks.peak import Peak
from probe.activations import Document, harvest
from probe.adapters import AdapterPlan, Objective, TuneConfig, examples_of, tune
from probe.hooks import Lane, Now, force, stream
from probe.models import Model, ModelConfig, Pair, PairConfig, load_model
from probe.pipeline import DecodingConfig, RunConfig, SizesConfig
from probe.pipeline.plan.arms import arms
from probe.pipeline.plan.shapes import shape_from
from probe.pipeline.plan.stages import STEERED, TRACE_ROWS, Setup, before_arms
from probe.pipeline.plan.work import Stage, Texts
from probe.problems import Problem
from probe.steering import GateBatch, SteeringConfig, collect_gates, keep_gates, learn_vectors, policy_data
from probe.taxonomy import Taxonomy
from probe.taxonomy.sae.normaliser import Normaliser
from probe.taxonomy.sae.weights import Weights
from probe.traces import Sentence, Trace

BUDGET = 2**29
"""Bytes that work on a model may take besides its weights while it is measured."""
SENTENCE, BEHAVIOURS = 25, 4
"""Tokens of a sentence, and behaviours of the taxonomy."""
STAGES = ("activations", "traces", "gates", "vectors", "policy", "lora training")
"""The stages that are measured, by their names in a plan."""


@dataclass(frozen=True)
class Case:
    """A workload: models of this width and depth, and random traces of this length.

    Attributes:
        vocab: the size of the vocabulary.
        long: whether there are more traces than are worked on at a time: then as many rows are decoded together as a
            run has by default, and what a run streams to disk is streamed.
    """

    width: int
    layers: int
    tokens: int
    traces: int
    vocab: int = 151_936
    long: bool = False

    def __str__(self) -> str:
        return f"d {self.width}, {self.layers} layers, {self.traces} × {self.tokens} tokens"


@dataclass(frozen=True)
class Measured:
    """One stage of one case.

    Attributes:
        peak: bytes of living tensors besides the weights.
        formula: the bytes that the plan says.
        tokens: tokens that ran forward through the models; a token in half of the blocks is half.
        formula_tokens: the tokens that the plan says; None where the plan counts backward passes too.
    """

    stage: str
    case: Case
    peak: int
    formula: float
    tokens: float
    formula_tokens: float | None


class Workload:
    """The models and the traces of a case."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.hf_config = Qwen2Config(
            num_hidden_layers=case.layers,
            hidden_size=case.width,
            num_attention_heads=case.width // 64,
            num_key_value_heads=2,
            intermediate_size=5 * case.width,
            vocab_size=case.vocab,
            tie_word_embeddings=True,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.hf: PreTrainedModel = AutoModelForCausalLM.from_config(self.hf_config)
        tokenizer = load_model("bundled:tiny-base", device="cpu").tokenizer
        base, thinking = (Model(self.hf, tokenizer, ModelConfig("qwen", prompt="{question}")) for _ in range(2))
        for model in (base, thinking):
            model.eos_ids, model.memory = (), BUDGET
        self.pair = Pair(PairConfig("random", base.config, thinking.config), base, thinking)
        generator = torch.Generator().manual_seed(1)
        # The last fifth of the lengths that there may be, so that rows are padded.
        lengths = [case.tokens - i % max(1, case.tokens // 5) for i in range(case.traces)]
        self.rows = [torch.randint(case.vocab, (length,), generator=generator).tolist() for length in lengths]
        self.problems = [Problem(str(i), f"Question {i}?", "1") for i in range(case.traces)]
        self.prompt = max(len(base.prompt_ids(problem.question)) for problem in self.problems)
        self.layer = case.layers // 2 - 1

    @property
    def base(self) -> Model:
        return self.pair.base

    @property
    def traces(self) -> list[Trace]:
        """Traces without text: no stage that is measured here reads it."""
        return [
            Trace(problem.id, problem.question, tuple(row), "", _sentences(len(row)), None, None, False, True)
            for problem, row in zip(self.problems, self.rows, strict=True)
        ]

    @property
    def taxonomy(self) -> Taxonomy:
        """Random directions."""
        decoder = torch.nn.functional.normalize(torch.randn(BEHAVIOURS, self.case.width), dim=1)
        weights = Weights(decoder.T.contiguous(), decoder, 1)
        return Taxonomy(f"resid_post.{self.layer}", Normaliser(torch.zeros(self.case.width)), weights)

    def gates(self) -> list[GateBatch]:
        """The gates of all traces: none, because both models are one."""
        return list(collect_gates(self.pair, self.taxonomy, self.traces, self.problems))

    def random_gates(self) -> list[GateBatch]:
        """Gates at random tokens, as many as a plan assumes."""
        generator = torch.Generator().manual_seed(2)
        batches = []
        for start in range(0, len(self.rows), TRACE_ROWS):
            some = range(start, min(start + TRACE_ROWS, len(self.rows)))
            prompts = [self.base.prompt_ids(self.problems[i].question) for i in some]
            forced = force(self.base, prompts, [self.rows[i] for i in some])
            gate = (torch.rand(forced.emitted.shape, generator=generator) < STEERED) & forced.emitted
            behaviour = torch.randint(BEHAVIOURS, gate.shape, generator=generator)
            batches.append(GateBatch(forced, gate, behaviour, forced.tokens))
        return batches

    def planned(self) -> dict[str, Stage]:
        """The stages of a run with one validation trace and all others to train on."""
        n = self.case.traces
        config = RunConfig(
            pair="random",
            sizes=SizesConfig(train=n - 1, validation=1, test=1),
            decoding=DecodingConfig(batch_size=n),
            steering=SteeringConfig(steps=STEPS, check_every=STEPS, seeds=(0,), layer=self.layer),
        )
        shape = shape_from(self.hf_config, "float32", "random")
        setup = Setup(config, shape, shape, Texts(self.case.tokens, self.prompt, SENTENCE))
        return {stage.name: stage for stage in (*before_arms(setup), *arms(setup))}


STEPS = 2
"""Training steps that are measured."""


def measure(case: Case, names: Sequence[str] = STAGES) -> Iterator[Measured]:
    """Run stages on a case, and count bytes and tokens."""
    work = Workload(case)
    planned = work.planned()
    for name in names:
        run, roles = _RUNS[name](work)
        with _counted(work.hf) as ran, Peak() as held:
            kept = run()
        del kept
        stage = planned[name]
        need = stage.need(roles)
        tokens = sum(stage.passes[role].tokens for role in roles if role in stage.passes)
        trained = name in ("vectors", "lora training")
        yield Measured(name, case, held.peak, need.given(BUDGET), sum(ran), None if trained else tokens)


def _activations(work: Workload) -> tuple[Callable[[], object], set[str]]:
    documents = []
    for row in work.rows:
        spans = tuple((start, min(start + SENTENCE, len(row))) for start in range(0, len(row), SENTENCE))
        documents.append(Document(tuple(row), spans, ("",) * len(spans)))
    site = f"resid_post.{work.layer}"

    def run() -> object:
        if not work.case.long:
            return harvest(work.pair.thinking, documents, [site])
        with tempfile.TemporaryDirectory() as folder:
            return harvest(work.pair.thinking, documents, [site], folder=folder)

    return run, {"thinking"}


def _traces(work: Workload) -> tuple[Callable[[], object], set[str]]:
    def choose(now: Now) -> tuple[torch.Tensor]:
        return (now.steps[0].logits.argmax(-1),)

    prompts = [work.base.prompt_ids(problem.question) for problem in work.problems]
    n = min(len(prompts), 100) if work.case.long else len(prompts)
    lane = Lane(work.pair.thinking, prompts)
    return lambda: list(stream([lane], choose, ends=set(), max_new_tokens=work.case.tokens, slots=n)), {"thinking"}


def _gates(work: Workload) -> tuple[Callable[[], object], set[str]]:
    def kept() -> object:
        with tempfile.TemporaryDirectory() as folder:
            return keep_gates(folder, work.pair, work.taxonomy, work.traces, work.problems)

    return kept if work.case.long else work.gates, {"base", "thinking"}


def _vectors(work: Workload) -> tuple[Callable[[], object], set[str]]:
    gates = work.random_gates()
    config = SteeringConfig(steps=STEPS, check_every=STEPS)

    def learn() -> object:
        return learn_vectors(
            work.base, gates, gates[:1], n_behaviours=BEHAVIOURS, layer=work.layer, config=config, seed=0
        )

    return learn, {"base"}


def _policy(work: Workload) -> tuple[Callable[[], object], set[str]]:
    gates = work.random_gates()
    tokens = 2_000 if work.case.long else 50_000
    return lambda: policy_data(work.base, gates, range(work.case.layers), tokens=tokens), {"base"}


def _lora(work: Workload) -> tuple[Callable[[], object], set[str]]:
    examples = examples_of(work.base, work.traces, work.problems)
    step = 4096 if work.case.long else sum(len(each.ids) for each in examples)
    config = TuneConfig(steps=STEPS, batch_tokens=step, check_every=STEPS, patience=1, seed=0)

    def train() -> object:
        with tempfile.TemporaryDirectory() as folder:
            plan = AdapterPlan(rank=8, alpha=16.0)
            return tune(
                work.base, examples, examples[:1], Objective("ce"), folder=Path(folder), plan=plan, config=config
            )

    return train, {"base"}


_RUNS: dict[str, Callable[[Workload], tuple[Callable[[], object], set[str]]]] = {
    "activations": _activations,
    "traces": _traces,
    "gates": _gates,
    "vectors": _vectors,
    "policy": _policy,
    "lora training": _lora,
}


@contextmanager
def _counted(hf: PreTrainedModel) -> Iterator[list[float]]:
    """Count the tokens that each block runs forward, as shares of a pass through all blocks."""
    blocks = list(hf.base_model.layers)  # pyright: ignore[reportArgumentType, reportCallIssue]
    ran: list[float] = []

    def note(_: object, given: tuple, __: object) -> None:
        ran.append(given[0].shape[:2].numel() / len(blocks))

    handles = [block.register_forward_hook(note) for block in blocks]
    try:
        yield ran
    finally:
        for handle in handles:
            handle.remove()


def _sentences(tokens: int) -> tuple[Sentence, ...]:
    return tuple(Sentence(0, 0, start, min(start + SENTENCE, tokens)) for start in range(0, tokens, SENTENCE))
