"""A tiny random model and a batch, for each architecture."""

import jaxtyping
import pytest
import torch

from probe.models import Model, load_model


@pytest.fixture
def model(tiny_folder, any_arch) -> Model:
    """A fresh copy for every test, so that what one test leaves behind cannot help another."""
    return load_model(tiny_folder(any_arch, "letters"))


@pytest.fixture
def ids() -> torch.Tensor:
    """A batch: three rows of 21 tokens (longer than the sliding windows of the Gemma models), no padding."""
    return torch.randint(4, 200, (3, 21), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def unchecked():
    """No type checking at run time, as users have it: wrong arguments reach the package's own errors."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
