"""The stages before the arms of a run, each with what it takes."""

from dataclasses import dataclass
from functools import cached_property

from probe.pipeline.plan.costs import Need, decoded_row, decoding, pass_bytes, reading, training
from probe.pipeline.plan.shapes import Shape
from probe.pipeline.plan.work import Passes, Stage, Texts
from probe.pipeline.run.config import RunConfig
from probe.taxonomy import sizes_for

TRACE_ROWS = 16
"""Traces in a batch of gates and in a training step."""
STEERED = 0.2
"""The share of tokens at which the models are assumed to disagree; an arm steers there."""
_READER = 20_000
"""States that the reader is fitted on."""
_COPIES = 4
"""Copies of the sentences in float32 while a taxonomy is fitted: raw, normalised, sorted by seed, and in scores."""
_HARVEST, _SHARD = 8192, 2**29
"""Tokens in a pass of the harvest, and bytes of the rows of one shard, at most."""
_PYTHON, _TEXT = 40, 400
"""Bytes of the machine's memory for a token of a trace, and for its sentence."""
_TOKEN_FILE, _GATE_FILE = 8, 14
"""Bytes on disk for a token of a trace, and of its gates."""


@dataclass(frozen=True)
class Setup:
    """The settings of a run, the sizes of its models and the lengths of its texts."""

    config: RunConfig
    base: Shape
    thinking: Shape
    texts: Texts
    shared: bool = False
    """Whether both models have the same weights, which are in memory once."""

    def shape(self, role: str) -> Shape:
        """The sizes of the model in a role."""
        return self.base if role == "base" else self.thinking

    @cached_property
    def learned_on(self) -> int:
        """Traces of the train and validation problems."""
        return self.config.sizes.train + self.config.sizes.validation

    @cached_property
    def answers(self) -> int:
        """The number of answers that each sampled model or arm gives to the test problems."""
        return self.config.sizes.test * self.config.decoding.samples

    @cached_property
    def layer(self) -> int:
        """The deepest steering layer that may be chosen; by default the block at 37 % of the depth."""
        steering, last = self.config.steering, max(0, self.base.layers - 2)
        default = max(0, -(-37 * self.base.layers // 100) - 1)
        wanted = steering.layers or (default if steering.layer is None else steering.layer,)
        return min(last, *wanted)

    @property
    def above(self) -> int:
        """The number of blocks above the steering layer."""
        return self.base.layers - self.layer - 1

    @property
    def sites(self) -> int:
        """The number of sites at which sentences are read."""
        return max(1, len(self.config.taxonomy.sites))

    @property
    def depth(self) -> float:
        """The share of the thinking model that is run to reach the deepest of these sites."""
        numbers = [int(site.rpartition(".")[2]) for site in self.config.taxonomy.sites if site[-1:].isdigit()]
        deepest = max(numbers, default=self.thinking.layers // 2 - 1)
        return min(1.0, (deepest + 1) / self.thinking.layers)

    @cached_property
    def numbers_of_behaviours(self) -> tuple[int, ...]:
        """The numbers of behaviours that are tried for the taxonomy."""
        return sizes_for(self.config.taxonomy, self.thinking.d_model, 10**6)

    @property
    def behaviours(self) -> int:
        """The most behaviours that the taxonomy may have."""
        return max(self.numbers_of_behaviours)

    @property
    def rows(self) -> int:
        """Traces in a batch."""
        return min(TRACE_ROWS, self.learned_on)

    @property
    def kept_traces(self) -> float:
        """Bytes of the machine's memory for all traces, which stay there during a run."""
        n = self.learned_on + 2 * self.answers
        return n * (self.texts.tokens * _PYTHON + self.texts.sentences * _TEXT)


def before_arms(setup: Setup) -> list[Stage]:
    """The stages up to the vectors of the hybrid, in the order in which they are run."""
    return [_models(setup), _traces(setup), _activations(setup), _taxonomy(setup), *_steering(setup)]


def _models(setup: Setup) -> Stage:
    """A model is read into the machine's memory before it moves to its device."""
    largest = max(setup.base.weights, setup.thinking.weights)
    return Stage("models", (), host=largest, setting="dtype", says="weights are read on the host first")


def _traces(setup: Setup) -> Stage:
    texts, slots = setup.texts, setup.config.decoding.batch_size
    passes, needs = {}, {}
    for role, shape, n in (
        ("base", setup.base, setup.answers),
        ("thinking", setup.thinking, setup.learned_on + setup.answers),
    ):
        rows = min(slots, n)
        passes[role] = Passes(n * texts.prompt, n * texts.tokens, rows, decoded_row(shape, texts.whole))
        needs[role] = decoding(shape, rows, texts.whole, texts.prompt)
    disk = (setup.learned_on + 2 * setup.answers) * texts.tokens * _TOKEN_FILE
    return Stage("traces", ("traces",), passes, needs, host=setup.kept_traces, disk=disk)


def _activations(setup: Setup) -> Stage:
    shape, texts, n = setup.thinking, setup.texts, setup.learned_on
    inner = shape.size * (8 * shape.d_model + 4 * shape.d_mlp + setup.sites * shape.d_model)
    token = inner + (shape.size + 8) * shape.d_model
    masks = texts.whole**2 * (shape.size * shape.windows + 3)
    most = max(texts.whole, min(_HARVEST, n * texts.whole))
    disk = n * texts.sentences * (setup.sites * shape.d_model * shape.size + _TEXT / 2)
    return Stage(
        "activations",
        ("activations",),
        {"thinking": Passes(n * texts.whole * setup.depth)},
        {"thinking": Need(texts.whole * token + masks, most * token + masks * max(1.0, most / texts.whole))},
        host=setup.kept_traces + min(disk, 2 * _SHARD),
        disk=disk,
    )


def _taxonomy(setup: Setup) -> Stage:
    sizes, width = setup.config.sizes, setup.thinking.d_model
    most = setup.config.taxonomy.most_sentences
    sentences = sum(min(n * setup.texts.sentences, most) for n in (sizes.train, sizes.validation))
    grid = sum(setup.numbers_of_behaviours) * len(setup.config.taxonomy.seeds)
    return Stage(
        "taxonomy",
        ("taxonomy",),
        host=setup.kept_traces + _COPIES * 4 * sentences * width,
        disk=8 * grid * width * setup.sites,
        setting="taxonomy.sizes",
        says="fitted on the host; its time is not estimated",
    )


def _steering(setup: Setup) -> list[Stage]:
    sizes, texts, n = setup.config.sizes, setup.texts, setup.learned_on
    steering, both = setup.config.steering, (("base", setup.base), ("thinking", setup.thinking))
    reader = Stage(
        "reader",
        ("steering",),
        {"thinking": Passes(sizes.train * texts.whole)},
        {"thinking": reading(setup.thinking, setup.rows, texts.whole, states=1)},
        host=setup.kept_traces + 3 * 4 * min(_READER, sizes.train * texts.tokens) * setup.thinking.d_model,
    )
    gates = Stage(
        "gates",
        ("steering",),
        {role: Passes(n * texts.whole) for role, _ in both},
        {role: reading(shape, setup.rows, texts.whole, states=1, logits=True) for role, shape in both},
        host=setup.kept_traces,
        disk=n * texts.whole * _GATE_FILE,
    )
    trainings = len(steering.seeds) + 1 + (len(steering.layers) if len(steering.layers) > 1 else 0)
    vectors = Stage(
        "vectors",
        ("steering",),
        {"base": prefix_passes(setup) + learning_passes(setup) * trainings},
        {"base": learning_need(setup)},
        host=setup.kept_traces,
        disk=n * texts.whole * setup.base.d_model * setup.base.size,
        says=f"{trainings} trainings; states below the steering layer are kept on disk while there is room",
    )
    return [reader, gates, vectors]


def prefix_passes(setup: Setup) -> Passes:
    """One pass up to the steering layer over the texts that vectors are learned on."""
    return Passes(setup.learned_on * setup.texts.whole * (setup.layer + 1) / setup.base.layers)


def learning_passes(setup: Setup) -> Passes:
    """The passes of one training above the steering layer, if it takes all its steps: forward and backward, and the
    evaluations on the validation traces."""
    steering, sizes, whole = setup.config.steering, setup.config.sizes, setup.texts.whole
    rows = setup.rows * steering.batches_per_step
    evaluations = (steering.steps // steering.check_every + 1) * sizes.validation
    return Passes((2 * steering.steps * rows + evaluations) * whole * setup.above / setup.base.layers)


def learning_need(setup: Setup, gates: float = STEERED) -> Need:
    """What a training step of a mechanism needs.

    Args:
        gates: the share of tokens that are gates.
    """
    return training(setup.base, setup.rows, setup.texts.whole, blocks=setup.above, gates=gates)


def policy(setup: Setup) -> Stage:
    """The policy of the oracle-free hybrid."""
    shape, texts, n, config = setup.base, setup.texts, setup.learned_on, setup.config
    layers = min(config.policy.layers, shape.layers)
    most = config.policy.tokens
    tokens = sum(min(most, each * texts.tokens) for each in (config.sizes.train, config.sizes.validation))
    states = tokens * layers * shape.d_model * shape.size
    one = pass_bytes(shape, texts.whole, states=layers)
    return Stage(
        "policy",
        ("policy",),
        {"base": Passes(n * texts.whole)},
        {"base": Need(one, setup.rows * one)},
        host=setup.kept_traces + states,
        disk=layers * shape.d_model * config.policy.hidden * 4,
        says="the states that it learns from lie on the host, or on the device where they take little of its room",
    )
