"""A random model and random SAEs for it."""

import pytest
import torch
from sae_lens import TopKSAE, TopKSAEConfig
from sae_lens.saes.sae import SAEMetadata

from probe.models import ModelConfig, load_model


def random_topk(d_in=32, d_sae=48, k=4, site="blocks.1.hook_resid_post", seed=0, **more):
    """A top-k SAE with random weights and biases."""
    config = TopKSAEConfig(
        d_in=d_in, d_sae=d_sae, k=k, apply_b_dec_to_input=True, metadata=SAEMetadata(hook_name=site), **more
    )
    with torch.random.fork_rng(devices=[]):
        sae = TopKSAE(config)
    generator = torch.Generator().manual_seed(seed)
    state = {name: torch.randn(tensor.shape, generator=generator) for name, tensor in sae.state_dict().items()}
    state["W_dec"] = torch.nn.functional.normalize(state["W_dec"], dim=1)
    sae.load_state_dict(state)
    return sae.requires_grad_(False)


@pytest.fixture
def model(arch, tiny_folder):
    return load_model(ModelConfig(str(tiny_folder(arch))), device="cpu")


@pytest.fixture
def llama(tiny_folder):
    return load_model(ModelConfig(str(tiny_folder("llama"))), device="cpu")
