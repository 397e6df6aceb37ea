"""A hash of what an object holds: settings, tensors, learned modules and the functions among them."""

import functools
import hashlib
import types
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from probe.models.fingerprint import identity, weights_hash
from probe.models.model import Model


def content_hash(value: Any) -> str:
    """Hash a value by its content, so that kept work knows the parts that it was made with.

    Dataclasses, modules, tensors, arrays, collections and plain objects are read to the bottom; functions by their
    code and what they have captured. The order of a set or of keys does not matter.

    Returns:
        64 hex digits.
    """
    found = hashlib.sha256()
    for piece in _pieces(value, ()):
        found.update(piece.encode("utf-8", "backslashreplace") + b"\0")
    return found.hexdigest()


def _pieces(value: Any, above: tuple[int, ...]) -> list[str]:
    """What a value holds as a list of texts."""
    if value is None or isinstance(
        value, bool | int | float | complex | str | bytes | Path | torch.dtype | torch.device
    ):
        return [f"{type(value).__name__} {value!r}"]
    if id(value) in above:
        return ["itself"]
    above = (*above, id(value))
    if isinstance(value, torch.Tensor):
        return ["tensor", weights_hash([("", value)])]
    if isinstance(value, np.ndarray | np.generic):
        array = np.ascontiguousarray(value)
        return ["array", str(array.dtype), str(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
    if isinstance(value, Model):
        return ["model", *_pieces(identity(value), above)]
    if isinstance(value, Mapping):
        return ["mapping", *sorted("\1".join(_pieces(pair, above)) for pair in value.items())]
    if isinstance(value, Set):
        return ["set", *sorted("\1".join(_pieces(each, above)) for each in value)]
    if isinstance(value, Sequence):
        return [f"sequence {len(value)}", *(piece for each in value for piece in _pieces(each, above))]
    if isinstance(value, functools.partial):
        return ["partial", *_pieces((value.func, value.args, value.keywords), above)]
    if isinstance(value, types.MethodType):
        return ["method", value.__name__, *_pieces(value.__self__, above)]
    if isinstance(value, types.FunctionType):
        captured = [[cell.cell_contents for cell in value.__closure__ or ()], value.__defaults__, value.__kwdefaults__]
        return ["function", *_code(value.__code__, above), *_pieces(captured, above)]
    if isinstance(value, type | types.BuiltinFunctionType | torch.Generator):
        return [f"{getattr(value, '__module__', '')} {getattr(value, '__qualname__', type(value).__name__)}"]
    return [*_class(type(value), above), *_pieces(_state(value), above)]


def _state(value: Any) -> Any:
    if hasattr(type(value), "content"):  # an object that says itself what it is known by, for example without its names
        return value.content
    if isinstance(value, nn.Module):
        tensors = {**dict(value.named_parameters()), **dict(value.named_buffers())}
        own = {name: each for name, each in vars(value).items() if not name.startswith("_") and name != "training"}
        return {"tensors": tensors, "own": own, "modules": [type(module).__qualname__ for module in value.modules()]}
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    slots = {name: getattr(value, name) for name in getattr(type(value), "__slots__", ()) if hasattr(value, name)}
    return {**slots, **getattr(value, "__dict__", {})}


_LIBRARIES = ("builtins", "numpy", "probe", "sae_lens", "sklearn", "torch", "transformers")


def _class(kind: type, above: tuple[int, ...]) -> list[str]:
    """A class by its name, and a user's own by the code of its methods, which may be edited in a notebook."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    if kind.__module__.split(".")[0] in _LIBRARIES:
        return [name]
    code = [each.__code__ for each in vars(kind).values() if isinstance(each, types.FunctionType)]
    return [name, *(piece for each in code for piece in _code(each, above))]


def _code(code: types.CodeType, above: tuple[int, ...]) -> list[str]:
    constants = [_code(each, above) if isinstance(each, types.CodeType) else each for each in code.co_consts]
    return [code.co_name, code.co_code.hex(), *_pieces([constants, code.co_names], above)]
