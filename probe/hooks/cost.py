"""How many bytes a pass with gradients takes, from which follow the micro-batches that fit into a budget."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from probe.hooks.attach import as_hf
from probe.models import Model, Sizes, fitting

Row = TypeVar("Row")

_ROWS, _LOGITS = 0.7, 0.3
"""The shares of a budget that rows and logits may take."""


@dataclass(frozen=True)
class TrainingCost:
    """The bytes that a forward pass and its backward pass take besides the weights.

    The numbers were measured by counting living tensors in passes of random Llama, Qwen2, GPT-NeoX and Gemma 2 models
    (widths 256 and 512, float32 and bfloat16), and agree with a Qwen2 of 7B whose tensors have shapes alone. For each
    number that goes into or comes out of a linear layer of a block, autograd keeps about one number if all weights are
    frozen, and 5 bytes (float32) or 4 bytes (bfloat16) if the layers have a LoRA, which computes in float32. The
    backward pass of a block takes 0.6 of them more for a moment. A checkpointed block keeps its input alone. Attention
    in the eager way keeps 10 bytes for each head and pair of tokens; linear attention keeps what it computes in float32
    (measured on Qwen3.5). A cross-entropy and its gradient take 12 bytes for each entry of the logits (16 where they
    are capped), and a comparison of two models' logits 28 (32). GPT-2 with its step-by-step GELU keeps up to 1.5 times
    as much; where that is too much, running out of memory halves the size.

    Attributes:
        token: bytes for a token if every block keeps what its backward pass needs.
        light: the same with checkpointed blocks; None if the architecture cannot checkpoint.
        pair: bytes for a pair of tokens of one row if nothing is checkpointed: masks and scores.
        light_pair: the same with checkpointed blocks.
        position: bytes for the logits of one position and their gradient.
    """

    token: int
    light: int | None
    pair: int
    light_pair: int
    position: int

    @classmethod
    def of(
        cls, model: Model, *, above: int = -1, lora: bool = False, extra: int = 0, models: int = 1
    ) -> "TrainingCost":
        """Compute the bytes for a model without adapters.

        Args:
            model: the model.
            above: only the blocks above this one are run.
            lora: whether the linear layers get a LoRA.
            extra: further bytes for a token, such as those of an inserted SAE.
            models: the number of models whose logits a position compares.
        """
        blocks = list(model.layers)[above + 1 :]
        size, width = model.dtype.itemsize, model.d_model
        values = sum(_values(module) for module in blocks[0].modules())
        block = values * (3 + size / 2 if lora else size)
        moment = 0.6 * values * size + extra + 4 * size * width
        masks = size * len(model.mask_windows) + 12
        config: Any = model.hf.config
        sizes = Sizes.of(config)
        scores = 10 * sizes.heads if config._attn_implementation == "eager" else 0
        scan = 4 * sizes.scanned
        scans = scan * sum(layer > above for layer in model.state_layers)
        can = bool(getattr(as_hf(model), "supports_gradient_checkpointing", False))
        return cls(
            token=round(len(blocks) * block + scans + moment + scan),
            light=round(len(blocks) * size * width + block + moment + 2 * scan) if can else None,
            pair=masks + len(blocks) * scores,
            light_pair=masks + scores,
            position=16 * models * model.n_embeddings,
        )

    def row(self, tokens: int, *, light: bool = False) -> int:
        """Bytes for a row of a batch, padding included, without its logits."""
        token, pair = (self.light or self.token, self.light_pair) if light else (self.token, self.pair)
        return tokens * (token + tokens * pair)

    def whole(self, rows: int, tokens: int, positions: int | None = None) -> int:
        """The least budget in which a batch is run in one part.

        Args:
            rows, tokens: the shape of the batch.
            positions: the number of positions whose logits are computed; None for all.
        """
        logits = (rows * tokens if positions is None else positions) * self.position
        return max(int(rows * self.row(tokens) / _ROWS), int(logits / _LOGITS)) + 10

    def chunk(self, budget: int) -> int:
        """The number of positions whose logits may be held at once."""
        return max(1, int(_LOGITS * budget) // self.position)

    def micro_batches(
        self, rows: Sequence[Row], tokens_of: Callable[[Row], int], budget: int
    ) -> Iterator[tuple[list[Row], bool]]:
        """Divide the rows of a batch into consecutive groups that fit into a budget.

        Args:
            rows: the rows, such as texts.
            tokens_of: the number of tokens of a row.
            budget: bytes.

        Yields:
            A group of rows, and whether its blocks are checkpointed: those of a row that would not fit alone. A row
            that fits neither way is a group of its own.
        """
        room = int(_ROWS * budget)

        def heavy(row: Row) -> bool:
            return self.light is not None and self.row(tokens_of(row)) > room

        def runs() -> Iterator[tuple[list[Row], bool]]:
            start = 0
            for i in range(1, len(rows) + 1):
                if i == len(rows) or heavy(rows[i]) != heavy(rows[start]):
                    yield list(rows[start:i]), heavy(rows[start])
                    start = i

        for run, light in runs():
            for group in fitting(run, lambda row, light=light: self.row(tokens_of(row), light=light), room):
                yield group, light


def _values(module: nn.Module) -> int:
    """The numbers that go into and come out of a linear layer for a token; 0 for other modules.

    The shape of a quantised weight does not say them.
    """
    weights = [tensor for tensor in module.parameters(recurse=False) if tensor.ndim == 2]
    told = [getattr(module, name, None) for name in ("in_features", "out_features")]
    sizes = [each for each in told if isinstance(each, int)]
    if len(weights) == 1 and len(sizes) == 2:
        return sum(sizes)
    return sum(sum(tensor.shape) for tensor in weights)
