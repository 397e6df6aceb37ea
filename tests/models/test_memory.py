"""Work in parts that fit into memory, and work that runs out of it."""

import itertools
import logging

import pytest
import torch
from hypothesis import given, strategies as st

from probe.errors import ProbeError
from probe.models import fitting, halving, ran_out_of_memory

CPU = torch.device("cpu")


def allocate_too_much() -> None:
    torch.empty(2**60, dtype=torch.uint8)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()])
def test_errors_of_other_devices_count(error):
    assert ran_out_of_memory(error)


def test_the_real_error_of_the_cpu_counts():
    with pytest.raises(RuntimeError) as raised:
        allocate_too_much()
    assert ran_out_of_memory(raised.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of memory"), ProbeError("no")])
def test_other_errors_do_not_count(error):
    assert not ran_out_of_memory(error)


def test_work_is_tried_again_with_half_and_says_so(caplog):
    tried = []

    def work(size: int) -> str:
        tried.append(size)
        if size > 16:
            allocate_too_much()
        return f"done with {size}"

    with caplog.at_level(logging.WARNING, "probe"):
        assert halving(work, 64, device=CPU, what="decoding rows") == "done with 16"
    assert tried == [64, 32, 16]
    assert [record.getMessage() for record in caplog.records] == [
        "cpu ran out of memory while decoding rows; trying again with size 32",
        "cpu ran out of memory while decoding rows; trying again with size 16",
    ]


@pytest.mark.parametrize(("size", "tried"), [(64, [64, 32, 16]), (2, [2, 1]), (1, [1])])
def test_work_that_never_fits_is_one_line(size, tried):
    sizes = []

    def work(size: int) -> None:
        sizes.append(size)
        allocate_too_much()

    with pytest.raises(ProbeError, match=rf"cpu ran out of memory while decoding.*\({tried[-1]}\)"):
        halving(work, size, device=CPU, what="decoding")
    assert sizes == tried


def test_other_errors_are_not_tried_again():
    sizes = []

    def work(size: int) -> None:
        sizes.append(size)
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        halving(work, 8, device=CPU, what="decoding")
    assert sizes == [8]


@given(st.lists(st.integers(1, 50)), st.integers(1, 120))
def test_groups_fit_and_keep_the_order(sizes, room):
    groups = list(fitting(sizes, int, room))
    assert [size for group in groups for size in group] == sizes
    assert all(len(group) == 1 or max(group) * len(group) <= room for group in groups)
    # No group could have taken the first item of the next.
    for group, after in itertools.pairwise(groups):
        assert max(*group, after[0]) * (len(group) + 1) > room
