"""A pair of random models, and what is learned from nothing for it."""

import pytest
import torch

from probe.models import ModelConfig, Pair, PairConfig, load_model
from probe.taxonomy import Taxonomy
from probe.taxonomy.sae.normaliser import Normaliser
from probe.taxonomy.sae.weights import Weights


def random_taxonomy(model, layer, n_behaviours):
    """Behaviours in random directions."""
    generator = torch.Generator().manual_seed(3)
    directions = torch.nn.functional.normalize(torch.randn(n_behaviours, model.d_model, generator=generator), dim=-1)
    weights = Weights(directions.T, directions, k=1)
    return Taxonomy(f"resid_post.{layer}", Normaliser(torch.zeros(model.d_model)), weights)


@pytest.fixture
def llamas(tiny_folder):
    """Two random Llamas of one tokenizer, each with a prompt of its own."""
    configs = [
        ModelConfig(str(tiny_folder("llama", seed=1)), prompt="Problem: {question}\nSolution:"),
        ModelConfig(str(tiny_folder("llama", seed=2)), prompt="Question: {question}\n<think>"),
    ]
    return Pair(PairConfig("random", *configs), *(load_model(config, device="cpu") for config in configs))
