"""The bytes that the work of a run takes besides the weights: one pass, one decoded row, one trained row.

Each formula is that by which the work itself chooses how much it does at a time, so that a plan and a run agree.
``python -m benchmarks.scale`` compares them with what is measured.
"""

from dataclasses import dataclass

from probe.pipeline.plan.shapes import Shape

_FLOAT = 4
"""The bytes of a number in float32."""
_MOST_LOGITS = 2**27
"""The most logits that a forced pass computes at a time."""
_PROMPTS = 16_384
"""The most tokens of prompts that decoding runs in one pass."""
_HELD = 1.25
"""How much more than its tokens a cache of keys and values holds."""
_LOGITS = 0.3
"""The share of the room that the logits of a training step take."""
_CHOOSING = 3
"""Copies of a row's logits in float32 while its most likely token is chosen."""


@dataclass(frozen=True)
class Need:
    """Memory besides the weights, in bytes.

    Attributes:
        least: what the smallest part of the work takes, such as one row; less stops the run.
        wanted: what the work takes if it is there. With less, it does less at a time, and takes longer.
        logits: what its logits take, beside that.
        share: the largest share of the room that logits take; they are computed in chunks.
    """

    least: float = 0.0
    wanted: float = 0.0
    logits: float = 0.0
    share: float = 0.0

    def __or__(self, other: "Need") -> "Need":
        """The need of work that is done one after the other."""
        return Need(*(max(one, two) for one, two in zip(self._parts, other._parts, strict=True)))

    def __add__(self, other: "Need") -> "Need":
        """The need of work that is done at the same time."""
        return Need(*(one + two for one, two in zip(self._parts, other._parts, strict=True)))

    @property
    def _parts(self) -> tuple[float, ...]:
        return self.least, self.wanted, self.logits, self.share

    @property
    def all(self) -> float:
        """What the work takes if memory is unlimited."""
        return max(self.least, self.wanted + self.logits)

    def given(self, room: float) -> float:
        """What the work takes in this much memory."""
        return max(self.least, min(room, self.wanted + min(self.logits, self.share * room if self.logits else 0.0)))


def pass_bytes(shape: Shape, tokens: float, *, states: int = 0) -> float:
    """The bytes of a pass without gradients over one text, without logits.

    Args:
        tokens: the length of the text, its prompt included.
        states: the number of sites whose states are kept until the pass ends.
    """
    inside = shape.size * (8 * shape.d_model + 3 * shape.d_mlp) + 2 * _FLOAT * shape.d_model
    pairs = shape.size * shape.windows + 3 + (shape.heads * (2 * shape.size + _FLOAT) if shape.eager else 0)
    return tokens * (inside + states * shape.size * shape.d_model) + tokens**2 * pairs


def reading(shape: Shape, rows: float, tokens: float, *, states: int = 0, logits: bool = False) -> Need:
    """What forced passes over a batch of texts need: as many rows at a time as fit, and logits by chunks of tokens.

    Args:
        rows: the number of texts in the batch, whose results are kept together.
        tokens: the length of the longest text, its prompt included.
        states: the number of sites whose states are kept for the whole batch.
        logits: whether logits are computed.
    """
    kept = rows * tokens * states * shape.size * shape.d_model
    one, most = pass_bytes(shape, tokens, states=states), rows * pass_bytes(shape, tokens, states=states)
    each = shape.vocab * (shape.size + 2 * _FLOAT) if logits else 0
    chunk = min(_MOST_LOGITS, rows * tokens * shape.vocab) * shape.size if logits else 0
    return Need(kept + one + each, kept + most, chunk, shape.size / 16)


def decoded_row(shape: Shape, tokens: float) -> float:
    """The bytes of one row that is decoded, when it is so many tokens long, its prompt included."""
    return _HELD * tokens * shape.kv_bytes + _CHOOSING * _FLOAT * shape.vocab


def decoding(shape: Shape, rows: float, tokens: float, prompt: float) -> Need:
    """What decoding rows needs: one row at least, and all rows if they fit.

    Args:
        rows: the number of rows that are decoded together.
        tokens: the length of the longest row, its prompt included.
        prompt: the length of a prompt.
    """
    token = shape.size * (8 * shape.d_model + 4 * shape.d_mlp)
    row = decoded_row(shape, tokens)
    return Need(max(row, prompt * token), max(rows * row, min(_PROMPTS, rows * prompt) * token))


def training(shape: Shape, rows: float, tokens: float, *, blocks: int, gates: float = 1.0, lora: bool = False) -> Need:
    """What a training step needs: one row with checkpointed blocks at least, and all rows at once if they fit.

    Args:
        rows: the number of texts in a step.
        tokens: the length of the longest text, its prompt included.
        blocks: the number of blocks through which gradients flow.
        gates: the share of tokens whose logits are computed.
        lora: whether the linear layers have a LoRA, which computes in float32.
    """
    block = shape.values * (3 + shape.size / 2 if lora else shape.size)
    moment = 0.6 * shape.values * shape.size + _FLOAT * shape.size * shape.d_model
    masks = shape.size * shape.windows + 12
    scores = 10 * shape.heads if shape.eager else 0
    position = (20 + 4 * shape.size) * shape.vocab
    whole = tokens * (blocks * block + moment + tokens * (masks + blocks * scores))
    light = tokens * (blocks * shape.size * shape.d_model + block + moment + tokens * (masks + scores))
    fixed = _adapter(shape) if lora else 0
    return Need(fixed + light + position, fixed + rows * whole, rows * tokens * gates * position, _LOGITS)


def _adapter(shape: Shape, rank: int = 8) -> float:
    """A LoRA on all linear layers, its gradient and the two moments of Adam, in float32."""
    return 4 * _FLOAT * rank * shape.values * shape.layers
