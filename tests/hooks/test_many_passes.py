"""What a capture of many passes costs when it is read: in proportion to the passes, for selected and whole states."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from probe.hooks import Tokens
from probe.hooks.captured import Captured
from probe.hooks.passes import Pass
from probe.hooks.selection import Selector
from probe.models import Site

SITE = Site.parse("resid_post.0")


class Work(TorchDispatchMode):
    """Counts operations, and the elements of what they return that is no view."""

    def __init__(self):
        super().__init__()
        self.operations = self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.operations += 1
        if isinstance(out, torch.Tensor) and out.untyped_storage().nbytes() == out.nbytes:
            self.elements += out.numel()
        return out


def decoded(passes, *, selected, repeats=False, batch=4):
    """A capture of that many decoding steps; every third one runs row 1 again if ``repeats``."""
    selector = Selector(Tokens(phase="generation")) if selected else None
    acts = Captured((SITE,), selector, None, False)
    generator = torch.Generator().manual_seed(0)
    for past in range(passes):
        for rows in [None, torch.tensor([1])] if repeats and past % 3 == 1 else [None]:
            at = torch.arange(batch) if rows is None else rows
            column = torch.full((len(at), 1), past)
            now = Pass(column, column >= 0, column, torch.ones_like(at), column >= 1, at, batch, past, 1)
            acts.begin(past)
            acts.take(SITE, torch.randn(len(at), 1, 3, generator=generator), now if selected else None, rows)
    return acts


@pytest.mark.parametrize("selected", [True, False])
@pytest.mark.parametrize("repeats", [True, False])
def test_twice_the_passes_are_twice_the_work(selected, repeats):
    work = []
    for passes in (60, 120):
        acts = decoded(passes, selected=selected, repeats=repeats)
        with Work() as counted:
            acts[SITE]
        work.append(counted)
    assert work[1].operations <= 2.1 * work[0].operations
    assert work[1].elements <= 2.1 * work[0].elements


@pytest.mark.parametrize("repeats", [True, False])
def test_selected_states_are_those_of_the_whole(repeats):
    some, whole = (decoded(9, selected=each, repeats=repeats) for each in (True, False))
    assert whole[SITE].shape == (4, 9, 3)
    assert torch.equal(some[SITE], whole[SITE][:, 1:].flatten(0, 1))
    assert some.positions.tolist() == list(range(1, 9)) * 4
