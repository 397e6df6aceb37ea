"""What the tests check of annotations: the kinds of all arguments and results, and one size for each axis of arrays."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pytest
import torch
import typecheck
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float, TypeCheckError, config
from torch import Tensor

WRONG = (BeartypeCallHintViolation, TypeCheckError)


def checked(fn):
    return typecheck.jaxtyped(typechecker=typecheck.check)(fn)


@checked
def plain(a: int, b: "list[str]", c: float = 0.0) -> str:
    return str(a) if c < 9 else b  # type: ignore[return-value]


@checked
def elsewhere(a: dict[str, "Unknown"], b: int, way: Literal["fast", "slow"] = "fast") -> int:  # noqa: F821
    return len(a) + b + (way == "slow")


@checked
def arrays(a: Float[Tensor, "rows d"], b: dict[str, Float[Tensor, " rows"]] | None = None) -> Float[Tensor, "d rows"]:
    return a if b == {} else a.transpose(0, -1)


@checked
def each(a: Float[Tensor, "rows d"], b: Float[Tensor, " d"]) -> Iterator[Tensor]:
    yield from a + b


@checked
@dataclass
class Both:
    a: Float[Tensor, " rows"]
    b: Float[Tensor, " rows"]


@checked
@dataclass
class Plain:
    a: int


TWO, THREE = torch.zeros(2), torch.zeros(3)


def test_what_is_right_is_let_through():
    assert plain(1, b="strings are no annotations", c=1) == "1"
    assert arrays(torch.zeros(2, 3), {"x": TWO}).shape == (3, 2)
    assert len(list(each(torch.zeros(2, 3), THREE))) == 2
    assert Both(TWO, TWO) and Plain(1)
    assert elsewhere({"a": 1}, 2) == 3


@pytest.mark.parametrize(
    "call",
    [
        lambda: plain("1", []),
        lambda: plain(1, [], c=9.0),
        lambda: arrays(TWO),
        lambda: arrays(torch.zeros(2, 3), {"x": THREE}),
        lambda: arrays(torch.zeros(2, 3), {}),
        lambda: list(each(torch.zeros(2, 3), TWO)),
        lambda: Both(TWO, THREE),
        lambda: Plain("1"),
        lambda: elsewhere({}, 1.5),
        lambda: elsewhere({}, 1, "middle"),
    ],
)
def test_what_is_wrong_is_found_unless_nothing_is_checked(call):
    with pytest.raises(WRONG):
        call()
    config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(RuntimeError) if "each" in call.__code__.co_names else pytest.MonkeyPatch.context():
            call()
    finally:
        config.update("jaxtyping_disable", False)


def test_the_package_is_checked(request):
    if not request.config.getoption("jaxtyping_packages"):
        pytest.skip("annotations are not checked in this run")
    from probe.statistics import share_interval

    assert share_interval([True, False]).value == 0.5
    with pytest.raises(WRONG):
        share_interval([0.5])
