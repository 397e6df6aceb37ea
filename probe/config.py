"""Strict conversion of plain dictionaries, as read from YAML, to frozen dataclasses and back.

The dataclass of a stage is its section in the YAML file and its options on the command line. An unknown key, a missing
key and a value of the wrong type are refused by name.
"""

import ast
import contextlib
import dataclasses
import difflib
import inspect
import itertools
import json
import math
import re
import textwrap
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from probe.errors import ProbeError
from probe.files import read_json

T = TypeVar("T")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the end of an error message: the known name closest to ``word``, or else the first dozen known names.

    >>> nearest("layr", ["layer", "k"])
    "did you mean 'layer'?"
    >>> nearest("zebra", ["layer", "k"])
    'known: k, layer'
    """
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    more = f" and {len(known) - 12} more" if len(known) > 12 else ""
    return f"known: {', '.join(known[:12])}{more}" if known else "there are none"


def from_dict(cls: type[T], data: Any, where: str = "") -> T:
    """Make the dataclass ``cls`` from a plain dictionary.

    Annotations may be bool, int, float, str, Path, Literal, unions, tuple, list, dict and nested dataclasses. A list
    becomes a tuple where the annotation is a tuple. Whole numbers, and strings such as "1e-3" (which YAML does not read
    as a number), become floats where the annotation is float. Nothing else is converted.

    Args:
        data: a dictionary whose keys are field names; fields with a default may be left out.
        where: the name of this dictionary in error messages, for example ``"steering"`` or ``"run.yaml"``.

    Raises:
        ProbeError: for an unknown key (the message suggests the nearest known one), a missing key, or a value of the
            wrong type.

    Example:
        >>> from probe.models import ModelConfig
        >>> from_dict(ModelConfig, {"path": "org/name"}).path
        'org/name'
    """
    if not isinstance(data, Mapping):
        raise ProbeError(f"{where or cls.__name__} must be a set of 'key: value' lines, not {_short(data)}")
    inside = f" in {where}" if where else ""
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, cls)) if field.init}
    for key in data:
        if key not in fields:
            raise ProbeError(f"unknown key {str(key)!r}{inside}; {nearest(str(key), fields)}")
    for name, field in fields.items():
        if name not in data and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ProbeError(f"missing key {name!r}{inside}; give a value for it")
    hints = typing.get_type_hints(cls)
    return cls(**{key: _convert(hints[key], value, f"{where}.{key}" if where else key) for key, value in data.items()})


FIX = "delete the file and run the command again, which makes it again"
"""What to do about a damaged file, unless a reader knows better."""


def read_as(hint: Any, path: str | Path, *, fix: str = FIX) -> Any:
    """Read a JSON file and check it against an annotation.

    Args:
        hint: what the file holds: a dataclass, a ``TypedDict`` (other keys are kept, because later versions may write
            more), or lists and dictionaries of them.
        path: the file.
        fix: what to do about a file that does not hold it.

    Returns:
        The content, with lists converted to tuples and dictionaries to dataclasses where the annotation says so.

    Raises:
        ProbeError: if the file is missing, is not JSON, holds a number that is not finite or text that cannot be
            written, or differs from the annotation; the message names the place in the file.
    """
    value = read_json(path, fix=fix)
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        raise ProbeError(f"{path} holds a number that is not finite, or half of a character; {fix}") from None
    return as_type(hint, value, str(path), fix=fix)


def as_type(hint: Any, value: Any, where: str, *, fix: str = FIX) -> Any:
    """Check a value that was read from a file against an annotation; :func:`read_as` explains the arguments.

    Raises:
        ProbeError: if it differs from the annotation.

    >>> as_type(dict[str, list[int]], {"rows": [1, "2"]}, "part.json", fix="delete it")
    Traceback (most recent call last):
    probe.errors.ProbeError: part.json.rows[1] must be a whole number, not '2'; delete it
    """
    try:
        return _convert(hint, value, where)
    except ProbeError as error:
        raise ProbeError(f"{error}; {fix}") from None


def check_least(section: str, config: Any, **least: float) -> None:
    """Refuse settings below their smallest allowed value; None is accepted.

    Args:
        section: the name of ``config`` in error messages; "" for settings outside a section.
        least: the smallest allowed value of each field to check.

    Raises:
        ProbeError: for the first value that is too small, infinite or NaN.

    >>> check_least("decoding", types.SimpleNamespace(batch_size=0), batch_size=1)
    Traceback (most recent call last):
    probe.errors.ProbeError: decoding.batch_size is 0; it must be at least 1
    """
    for name, bound in least.items():
        value = getattr(config, name)
        if value is not None and not bound <= value < math.inf:
            raise ProbeError(f"{_inside(section, name)} is {value}; it must be at least {bound}")


def check_above_zero(section: str, config: Any, *names: str) -> None:
    """Refuse settings that are zero, negative, infinite or NaN; the arguments are those of :func:`check_least`."""
    for name in names:
        value = getattr(config, name)
        if not 0 < value < math.inf:
            raise ProbeError(f"{_inside(section, name)} is {value}; it must be above 0")


def check_seeds(where: str, seeds: Sequence[int]) -> None:
    """Refuse an empty list of seeds, a repeated seed, and a seed that some library does not accept.

    Args:
        where: the name of the setting in error messages.
        seeds: the seeds to check.

    Raises:
        ProbeError: for the first mistake.
    """
    if not seeds:
        raise ProbeError(f"{where} is empty: give at least one seed")
    for seed in seeds:
        if not 0 <= seed < 2**32:
            raise ProbeError(f"{where}: {seed} is not a seed; give whole numbers from 0 to {2**32 - 1}")
    if len(set(seeds)) < len(seeds):
        raise ProbeError(f"{where} names a seed twice: {list(seeds)}; give each seed once")


def _inside(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name


_PLAIN = (int, str, bool)
"""Types whose values stay as they are."""
_MANY = ((), (Ellipsis,))
"""What follows the first argument of ``list[T]`` and of ``tuple[T, ...]``."""


class _Mismatch(ProbeError):
    """A value does not match an annotation, so a union tries its next member."""


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Convert ``value`` to the annotation ``hint``."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is Literal:
        if value not in arguments:
            offer = (
                nearest(value, [str(each) for each in arguments]) if isinstance(value, str) else f"known: {arguments}"
            )
            raise _Mismatch(f"{where} cannot be {value!r}; {offer}")
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value, where)
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, typing.cast(type, hint)) else from_dict(typing.cast(type, hint), value, where)
    if typing.is_typeddict(hint):
        return _convert_record(hint, value, where)
    if _plain_list(origin, arguments, value):
        return origin(value)
    if origin is tuple and isinstance(value, list | tuple):
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            arguments = (arguments[0],) * len(value)
        if len(arguments) == len(value):
            return tuple(
                _convert(each, item, f"{where}[{i}]")
                for i, (each, item) in enumerate(zip(arguments, value, strict=True))
            )
    if origin is list and isinstance(value, list | tuple):
        return [_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    if origin is dict and isinstance(value, Mapping):
        return {
            _convert(arguments[0], key, where): _convert(arguments[1], item, f"{where}.{key}")
            for key, item in value.items()
        }
    if hint is float and isinstance(value, int | str) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            if math.isfinite(number := float(value)):
                return number
    if hint is Path and isinstance(value, str):
        return Path(value)
    # Python counts a bool as an int, but here it is a mistake.
    if (
        isinstance(hint, type)
        and origin is None
        and isinstance(value, hint)
        and (hint is bool or not isinstance(value, bool))
    ):
        return value
    raise _Mismatch(f"{where} must be {_name(hint)}, not {_short(value)}")


def _plain_list(origin: Any, arguments: tuple[Any, ...], value: Any) -> bool:
    """Whether a value is a list of what needs no conversion: the tokens of a trace are too many for one call each."""
    if origin not in (tuple, list) or not isinstance(value, list | tuple) or arguments[1:] not in _MANY:
        return False
    return arguments[0] in _PLAIN and all(type(item) is arguments[0] for item in value)


def _convert_record(hint: Any, value: Any, where: str) -> dict[str, Any]:
    """Check the known keys of a ``TypedDict``, and keep the others."""
    if not isinstance(value, Mapping):
        raise _Mismatch(f"{where} must be {_name(hint)}, not {_short(value)}")
    missing = sorted(hint.__required_keys__ - value.keys())
    if missing:
        raise _Mismatch(f"{where} lacks {missing[0]!r}")
    hints = typing.get_type_hints(hint)
    known = {key: _convert(each, value[key], f"{where}.{key}") for key, each in hints.items() if key in value}
    return {**value, **known}


def _short(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= 80 else f"{said[:78]} …"


def _convert_union(members: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and types.NoneType in members:
        return None
    members = tuple(member for member in members if member is not types.NoneType)
    # A value that has exactly the type of one member keeps it: "3" stays text in `float | str`.
    members = tuple(sorted(members, key=lambda member: member is not type(value)))
    refusals = []
    for member in members:
        try:
            return _convert(member, value, where)
        except _Mismatch as refusal:
            refusals.append(refusal)
    if len(refusals) == 1:
        raise refusals[0]
    raise _Mismatch(f"{where} must be {' or '.join(map(_name, members))}, not {_short(value)}")


def _name(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Path: "a path"}
    if typing.is_typeddict(hint) or typing.get_origin(hint) is dict:
        return "an object"
    if typing.get_origin(hint) is tuple or typing.get_origin(hint) is list:
        return f"a list ({str(hint).replace('typing.', '')})"
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    return names.get(hint) or getattr(hint, "__name__", str(hint))


def to_dict(config: Any) -> dict[str, Any]:
    """Convert a dataclass to a plain dictionary for JSON or YAML; :func:`from_dict` is the inverse.

    A field with ``later`` in its metadata was added later. At its default it is left out, so that settings that an
    earlier version wrote are still the same settings.
    """
    return {
        field.name: _plain(value)
        for field in dataclasses.fields(config)
        if field.init and not ("later" in field.metadata and getattr(config, field.name) == _default(field))
        for value in [getattr(config, field.name)]
    }


def _default(field: Any) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def byte_size(said: int | str | None) -> int | None:
    """Read an amount of memory; a number, or None, stays what it is.

    >>> byte_size("80GB"), byte_size("1.5 GiB"), byte_size(None)
    (80000000000, 1610612736, None)

    Raises:
        ProbeError: if it is not an amount above 0.
    """
    if not isinstance(said, str):
        return said
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)b?|b)\s*", said.lower())
    if match is None or not float(match[1]):
        raise ProbeError(f"memory is {said!r}; write an amount with its unit, such as 80GB or 512MiB")
    number, unit, binary = match.groups()
    return max(1, int(float(number) * (_BINARY if binary else _UNITS)[unit or ""]))


def as_pattern(said: str) -> re.Pattern[str]:
    """Compile a regular expression that a user wrote.

    Raises:
        ProbeError: if it is empty or is no regular expression.
    """
    try:
        made = re.compile(said)
    except re.error as error:
        raise ProbeError(f"{said!r} is no regular expression: {error}") from None
    if not said:
        raise ProbeError("the pattern is empty; write a regular expression, such as Wait|Hold on")
    return made


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of ``key: value`` lines; an empty file is an empty dictionary.

    Raises:
        ProbeError: if the file is missing, is not YAML or has other content; the message names the file and the line.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        raise ProbeError(f"{path} cannot be read; is it a file?") from None
    except UnicodeDecodeError as error:
        raise ProbeError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    # What PyYAML raises for "!!int x", a date in month 13, a number of thousands of digits, or as many brackets.
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise ProbeError(f"{path} cannot be read as YAML ({error}); correct the value") from None
    except yaml.YAMLError as error:
        mark, why = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        why = why or " ".join(str(error).split())
        line = f":{mark.line + 1}" if mark else ""
        raise ProbeError(f"{path}{line} is not valid YAML ({why})") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ProbeError(f"{path} must hold 'key: value' lines, not {type(data).__name__}")
    return data


def describe(cls: type) -> dict[str, str]:
    """Return the docstring under each field of a dataclass as one line; "" for a field without one."""
    text = dict.fromkeys((field.name for field in dataclasses.fields(cls)), "")
    for ancestor in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(ancestor):
            continue
        body = typing.cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(ancestor))).body[0]).body
        for field, below in itertools.pairwise(body):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    text[name] = " ".join(words.split())
    return text
