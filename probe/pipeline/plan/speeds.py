"""How long passes take: from a table of kinds of devices, with a wide range, or measured on the models themselves."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from probe.hooks import Lane, Now, stream
from probe.models import DeviceNames, Model, ModelConfig, load_model
from probe.pipeline.plan.shapes import Shape
from probe.pipeline.plan.work import Passes, Stage

Range = tuple[float, float]
"""The least and the most."""


@dataclass(frozen=True)
class Kind:
    """What a kind of device does in a second.

    Attributes:
        flops: floating-point operations of a pass over whole texts, in bfloat16.
        bandwidth: bytes of weights and caches that a decoding step reads.
        layer: seconds that a decoding step takes for each block, however little it computes.
    """

    flops: Range
    bandwidth: Range
    layer: Range = (3e-4, 1.2e-3)


KINDS: Mapping[str, Kind] = {
    "H200": Kind((150e12, 500e12), (1.5e12, 4e12)),
    "H100": Kind((150e12, 500e12), (1.2e12, 3e12)),
    "A100": Kind((80e12, 220e12), (0.7e12, 1.6e12)),
    "GPU": Kind((20e12, 300e12), (0.3e12, 2e12)),
    "mps": Kind((2e12, 15e12), (0.05e12, 0.5e12)),
    "CPU": Kind((0.03e12, 2e12), (0.01e12, 0.2e12)),
}
"""Wide ranges by judgement, from the makers' figures (an H100: 989 TFLOP/s in bfloat16, 3.35 TB/s) down to a small part
of them. They were not measured; ``measure`` does that."""
_FLOAT32 = 8
"""How much slower than bfloat16 a GPU multiplies in float32."""
_AROUND: Range = (0.7, 1.5)
"""What a measured speed is multiplied with: other lengths, other work beside the passes."""


@dataclass(frozen=True)
class Speed:
    """How fast a model runs on its device.

    Attributes:
        read: seconds for a token of a whole text.
        step: seconds for a decoding step.
        row: seconds more for each byte of a row's cache.
        measured: whether it was measured.
    """

    read: Range
    step: Range
    row: Range = (0.0, 0.0)
    measured: bool = False

    def seconds(self, passes: Passes, rows: int) -> Range:
        """The seconds that passes take, with so many rows decoded together."""
        steps = passes.decoded / max(1, rows)
        # A row is half of its length on average.
        low, high = (
            passes.read * self.read[i] + steps * (self.step[i] + rows * passes.row / 2 * self.row[i]) for i in (0, 1)
        )
        return low, high


def speed_of(shape: Shape, kind: str) -> Speed:
    """Estimate the speed of a model from the table of devices."""
    found = KINDS[kind]
    slower = _FLOAT32 if shape.size == 4 and kind not in ("CPU", "mps") else 1
    used = shape.active * shape.size
    read = tuple(2 * shape.active * slower / flops for flops in reversed(found.flops))
    step = tuple(
        used / bandwidth + shape.layers * layer
        for bandwidth, layer in zip(reversed(found.bandwidth), found.layer, strict=True)
    )
    row = tuple(1 / bandwidth for bandwidth in reversed(found.bandwidth))
    return Speed((read[0], read[1]), (step[0], step[1]), (row[0], row[1]))


def seconds_of(stage: Stage, speeds: Mapping[str, Speed], rows: int) -> Range | None:
    """The seconds that the passes of a stage take, one model after the other; None if it runs no model."""
    parts = [speeds[role].seconds(passes, rows) for role, passes in stage.passes.items()]
    return (sum(low for low, _ in parts), sum(high for _, high in parts)) if parts else None


def measure(model: ModelConfig, device: DeviceNames, dtype: str, *, rows: int, tokens: int) -> Speed:
    """Load a model, and measure one pass and some decoding steps; about ten seconds beside loading.

    Args:
        rows: the number of rows that are decoded together.
        tokens: the length of the text that is read, and twice that of the rows.

    Raises:
        ProbeError: as :func:`~probe.load_model`.
    """
    loaded = load_model(model, device=device, dtype=dtype)
    read, step = _read_seconds(loaded, tokens), _step_seconds(loaded, rows, max(1, tokens // 2))
    return Speed((read * _AROUND[0], read * _AROUND[1]), (step * _AROUND[0], step * _AROUND[1]), measured=True)


@torch.no_grad()
def _read_seconds(model: Model, tokens: int) -> float:
    """Seconds for a token in a pass over one text; the second pass counts."""
    ids = torch.arange(tokens, device=model.device)[None] % model.n_embeddings
    took = 0.0
    for _ in range(2):
        began = time.perf_counter()
        model.hf(input_ids=ids, use_cache=False, logits_to_keep=1).logits.sum().item()
        took = time.perf_counter() - began
    return took / tokens


def _step_seconds(model: Model, rows: int, columns: int) -> float:
    """Seconds for a decoding step of rows that are so many columns long."""
    prompt = [i % model.n_embeddings for i in range(columns)]
    began: list[float] = []

    def choose(now: Now) -> tuple[torch.Tensor]:
        chosen = now.steps[0].logits.argmax(-1)
        chosen[0].item()  # waits for the device
        began.append(time.perf_counter())
        return (chosen,)

    list(stream([Lane(model, [prompt] * rows)], choose, ends=set(), max_new_tokens=_STEPS, slots=rows))
    return (began[-1] - began[1]) / (len(began) - 2)


_STEPS = 16
"""Decoding steps that are measured; the first is the prompts' pass, the second warms up."""
