"""One shell, many adapters: each does in it what it does attached, whatever was there before."""

import pytest
import torch

from probe.adapters import Adapter, shell
from probe.errors import ProbeError
from tests.adapters.test_attach import logits, tuned


def test_each_adapter_does_in_the_shell_what_it_does_alone(model, tmp_path):
    """All blocks, some blocks, another rank, some kinds of layers, half of it: exact, in any order."""
    whole, upper = tuned(model, tmp_path / "whole"), tuned(model, tmp_path / "upper", 1, layers=(2, 3), rank=3)
    wanted = {
        None: logits(model),
        whole: logits(model, whole),
        upper: logits(model, upper),
        Adapter(whole, 0.5, (1,)): logits(model, Adapter(whole, 0.5, (1,))),
    }
    assert not torch.equal(wanted[whole], wanted[None]) and not torch.equal(wanted[upper], wanted[None])
    before = {name: tensor.clone() for name, tensor in model.hf.state_dict().items()}
    with shell(model) as there:
        assert torch.equal(logits(model), wanted[None]), "an empty shell adds nothing"
        for each in [*wanted, *reversed(wanted)]:
            there.swap(each)
            torch.testing.assert_close(logits(model), wanted[each], atol=1e-6, rtol=1e-6)
        there.swap(None)
        assert torch.equal(logits(model), wanted[None])
    after = model.hf.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(after[name], before[name]) for name in before)


def test_what_does_not_fit_is_refused_and_nothing_changes(llama, tmp_path):
    whole = tuned(llama, tmp_path / "whole")
    with shell(llama) as there:
        there.swap(whole)
        kept = logits(llama)
        with pytest.raises(ProbeError, match="holds no adapter"):
            there.swap(tmp_path)
        assert torch.equal(logits(llama), kept)
