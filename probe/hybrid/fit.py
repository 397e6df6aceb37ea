"""Whether the parts of an arm fit the models that they read and steer."""

from collections.abc import Iterator
from typing import Any

from probe.errors import ProbeError
from probe.hybrid.moment import Arm, Part
from probe.models import Model
from probe.steering import BasePolicy, ComingReader, Mechanism, steering_layer
from probe.taxonomy import Taxonomy


def check_fit(arm: Arm, base: Model, thinking: Model | None) -> None:
    """Refuse an arm that was learned for models of another width or depth.

    Args:
        base: the model that is steered.
        thinking: the model that is asked; None if none is.

    Raises:
        ProbeError: naming the arm, the part and what does not fit.
    """
    if arm.emit.steers is not None:
        steering_layer(base, arm.emit.steers)
    for name, part in arm.parts.items():
        where = f"{name} of the arm '{arm.name}'"
        for model, layers in ((base, part.needs.base), (thinking, part.needs.thinking)):
            for layer in layers:
                if model is not None and not 0 <= layer < model.n_layers:
                    raise ProbeError(f"{where} reads layer {layer}; {model.name} has layers 0 to {model.n_layers - 1}")
        for what in _held(part):
            of_base = isinstance(what, Mechanism | BasePolicy)
            model, width = (base if of_base else thinking), _width(what)
            if model is not None and width != model.d_model:
                raise ProbeError(
                    f"{where} has a {type(what).__name__} for models {width} wide; {model.name} is {model.d_model} wide"
                )


def _held(part: Part) -> Iterator[Any]:
    """What a part and the parts in it were learned as."""
    for value in vars(part).values():
        if isinstance(value, Part):
            yield from _held(value)
        elif isinstance(value, Mechanism | BasePolicy | ComingReader | Taxonomy):
            yield value


def _width(what: Any) -> int:
    return int(what.directions.shape[-1]) if isinstance(what, Taxonomy | Mechanism) else what.d_model
