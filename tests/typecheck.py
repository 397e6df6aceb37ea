"""The type checker that checks the annotations of every function of the package while the tests run.

It is beartype, which here accepts an int where a float is expected, as Python does. jaxtyping's import hook decorates
every function with ``jaxtyping.jaxtyped``, which checks a function twice and binds its arguments, so that the axes of
its arrays have one size each. Most functions have no arrays, so here they are checked by beartype alone, which is the
same check at a fraction of the time.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, ForwardRef, Literal, get_args, get_origin

import jaxtyping
from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))

_jaxtyped = jaxtyping.jaxtyped


def _has_arrays(hint: Any) -> bool:
    if isinstance(hint, list):  # the parameters of a Callable
        return any(map(_has_arrays, hint))
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(map(_has_arrays, get_args(hint)))


def _has_names(hint: Any) -> bool:
    """Whether a part of an annotation is a string, whose name may be imported for type checkers alone."""
    if isinstance(hint, list):
        return any(map(_has_names, hint))
    if isinstance(hint, str | ForwardRef):
        return True
    return get_origin(hint) is not Literal and any(map(_has_names, get_args(hint)))


def jaxtyped(fn: Any = None, *, typechecker: Callable[..., Any] | None = None) -> Any:
    """``jaxtyping.jaxtyped`` where annotations have arrays, and beartype alone elsewhere."""
    if fn is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if inspect.isclass(fn):
        if dataclasses.is_dataclass(fn) and isinstance(fn.__init__, FunctionType):
            fn.__init__ = jaxtyped(fn.__init__, typechecker=typechecker)
        return fn
    if not isinstance(fn, FunctionType) or typechecker is None:
        return _jaxtyped(fn, typechecker=typechecker)
    own = fn.__annotations__
    known = {name: hint for name, hint in own.items() if not _has_names(hint)}  # jaxtyping ignores strings too
    fn.__annotations__ = known
    checked = check(fn)
    fn.__annotations__ = checked.__annotations__ = own
    if not any(map(_has_arrays, known.values())):
        return _switched(fn, checked)
    if inspect.isgeneratorfunction(fn):  # beartype checks its arguments when it begins, which is after the call
        return _jaxtyped(fn, typechecker=typechecker)
    return _switched(fn, _jaxtyped(checked, typechecker=None))


def _switched(fn: FunctionType, checked: Callable[..., Any]) -> Callable[..., Any]:
    """The checked function, or the function itself while jaxtyping is disabled."""
    if checked is fn:
        return fn
    config = jaxtyping.config

    @functools.wraps(fn)
    def switched(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs) if config.jaxtyping_disable else checked(*args, **kwargs)

    return switched


def install() -> None:
    """Decorate every function of a package that is imported from now on by this module's ``jaxtyped``."""
    jaxtyping.jaxtyped = jaxtyped
