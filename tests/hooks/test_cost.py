"""Micro-batches follow from a budget, and what is really held stays within it."""

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks.peak import Peak
from probe.adapters import Example, Objective, TuneConfig
from probe.adapters.mounting import quiet_peft
from probe.adapters.training.plan import adapted, trained
from probe.adapters.training.processes import Processes
from probe.adapters.training.tune import AdapterPlan, _Run
from probe.hooks import Head, TrainingCost, checkpointed, cross_entropy, score_logits, states_of
from probe.models import Model, load_model

COST = TrainingCost(token=100, light=10, pair=1, light_pair=1, position=1000)


@given(st.lists(st.integers(1, 60), min_size=1), st.integers(1, 100_000))
def test_micro_batches_fit_and_keep_the_order(sizes, budget):
    found = list(COST.micro_batches(sizes, int, budget))
    assert [size for group, _ in found for size in group] == sizes
    for group, light in found:
        taken = len(group) * max(COST.row(size, light=light) for size in group)
        assert taken <= 0.7 * budget or len(group) == 1
        assert light == all(COST.row(size) > int(0.7 * budget) for size in group)


@given(st.integers(1, 40), st.integers(1, 3000))
def test_what_is_said_to_fit_in_one_part_does(rows, tokens):
    budget = COST.whole(rows, tokens)
    assert [len(group) for group, _ in COST.micro_batches([tokens] * rows, int, budget)] == [rows]
    assert COST.chunk(budget) >= rows * tokens


@pytest.fixture(scope="module")
def wide(letters):
    """A Qwen2 of width 256 with four blocks and the vocabulary of the real ones."""
    config = Qwen2Config(
        vocab_size=151_936,
        hidden_size=256,
        intermediate_size=1344,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=1,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Model(Qwen2ForCausalLM(config), letters)


def test_quantised_weights_take_the_memory_of_the_layers_and_not_of_their_own_shapes(tiny_folder):
    model = load_model(tiny_folder("llama"), device="cpu")
    plain = TrainingCost.of(model)
    for module in model.layers.modules():
        if isinstance(module, nn.Linear):  # as bitsandbytes packs two numbers of 4 bits
            packed = torch.zeros(module.weight.numel() // 2, 1, dtype=torch.uint8)
            module.weight = nn.Parameter(packed, requires_grad=False)
    assert TrainingCost.of(model) == plain


CONFIG = TuneConfig(pack_to=1)


def texts(n, tokens, start):
    generator = torch.Generator().manual_seed(0)
    return [Example(tuple(torch.randint(6, 256, (tokens,), generator=generator).tolist()), start) for _ in range(n)]


def one_step(model, objective, some, memory, tmp_path):
    """The loss and the gradient of a step, its micro-batches, and the most bytes held."""
    model.memory = memory
    run = _Run(
        model, objective, TuneConfig(pack_to=1), train=some, validation=some, folder=tmp_path, processes=Processes()
    )
    with adapted(model, AdapterPlan(rank=4), objective, seed=0) as wrapped:
        with torch.no_grad():
            for name, tensor in trained(wrapped).items():
                if "lora_B" in name:  # otherwise no gradient reaches the other half
                    tensor.normal_(std=0.02, generator=torch.Generator().manual_seed(0))
        with Peak() as held:
            loss = run._backward(wrapped, 0, some)
        gradient = torch.cat([tensor.grad.flatten() for tensor in trained(wrapped).values()])
        batches = [(len(batch.ids), light) for batch, light in run.micro.batches(some, memory)]
    return loss, gradient, batches, held.peak


@pytest.mark.slow
def test_budgets_lead_to_other_micro_batches_and_the_same_gradient(wide, tmp_path):
    some, objective = texts(3, 96, start=72), Objective("ce")
    whole = objective.cost(wide).whole(3, 96)
    found = {memory: one_step(wide, objective, some, memory, tmp_path) for memory in (whole, 60_000_000, 16_000_000)}
    loss, gradient, *_ = found[whole]
    for memory, (each, other, _, peak) in found.items():
        assert peak < 1.2 * memory
        assert each == pytest.approx(loss, rel=1e-6)
        assert (other - gradient).norm() < 2e-5 * gradient.norm()
    parts = [batches for *_, batches, _ in found.values()]
    assert parts == [[(3, False)], [(2, False), (1, False)], [(2, True), (1, True)]]


@pytest.fixture(scope="module")
def seven(letters):
    """A Qwen2 of 7B in bfloat16 with a LoRA on every linear layer, whose tensors have shapes alone; and its cost."""
    from peft import LoraConfig, get_peft_model

    config = Qwen2Config(
        vocab_size=152_064,
        hidden_size=3584,
        intermediate_size=18_944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        dtype=torch.bfloat16,
    )
    with torch.device("meta"), quiet_peft():
        model = Model(Qwen2ForCausalLM(config).to(torch.bfloat16), letters)
        cost = TrainingCost.of(model, lora=True)
        get_peft_model(model.hf, LoraConfig(target_modules="all-linear")).train()
    with FakeTensorMode() as fake:
        for module in model.hf.modules():
            for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
                if tensor is not None:
                    made = torch.empty(tensor.shape, dtype=tensor.dtype)
                    learns = isinstance(tensor, torch.nn.Parameter)
                    made = torch.nn.Parameter(made, requires_grad=tensor.requires_grad) if learns else made
                    (module._parameters if learns else module._buffers)[name] = made
    return model, cost, fake


@pytest.mark.slow
@pytest.mark.parametrize(("tokens", "light"), [(2000, False), (2000, True), (8000, True)])
def test_the_cost_is_that_of_seven_billion(seven, tokens, light):
    model, cost, fake = seven
    with fake, Peak() as held, checkpointed(model) if light else nullcontext():
        ids, column = torch.zeros(1, tokens, dtype=torch.long), torch.arange(tokens)
        mask = torch.zeros(1, 1, tokens, tokens, dtype=torch.bfloat16)
        states = states_of(model, input_ids=ids, attention_mask=mask, position_ids=column[None], use_cache=False)
        places = torch.zeros_like(column), column
        score_logits(cross_entropy, [(Head(model), states)], places, ids[0], size=256).sum().backward()
    model.hf.zero_grad()
    computed = cost.row(tokens, light=light) + 256 * cost.position
    assert 0.6 * computed < held.peak < 1.05 * computed
