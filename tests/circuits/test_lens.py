"""Edges that are all kept are the model, edges that are all cut are the other text; single ones against plain torch."""

import pytest
import torch

from probe.circuits import EdgeLens, edge_scores, logit_difference
from probe.errors import NotApplicable, ProbeError
from probe.hooks import edit
from probe.models import ModelConfig, load_model
from tests.circuits.conftest import drawn_pairs

ADDITIVE = ("llama", "qwen2", "qwen3", "gpt2", "mistral", "gpt_neox-serial")


@pytest.mark.parametrize("arch", ADDITIVE)
def test_all_edges_are_the_model_and_none_are_the_other_text(arch, tiny_folder):
    model = load_model(ModelConfig(str(tiny_folder(arch))), device="cpu")
    lens = EdgeLens(model)
    (clean, corrupt, *_) = next(iter(drawn_pairs()))
    graph = lens.graph
    with torch.no_grad():
        plain, other = model.hf(clean).logits, model.hf(corrupt).logits
    torch.testing.assert_close(lens.logits(clean), plain, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(lens.cut(clean, corrupt, graph.edges), plain, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(lens.cut(clean, corrupt, graph.edges & False), other, atol=1e-4, rtol=1e-4)
    assert len(lens.written(clean)) == len(graph.writers)
    no_logits = graph.edges.clone()
    no_logits[:, -1] = False
    torch.testing.assert_close(lens.cut(clean, corrupt, no_logits), other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("arch", ADDITIVE)
def test_a_lens_shares_the_weights_and_leaves_them_as_they_are(arch, tiny_folder):
    model = load_model(tiny_folder(arch, "letters"))
    before = {name: tensor.clone() for name, tensor in model.hf.state_dict().items()}
    own = {tensor.untyped_storage().data_ptr() for tensor in model.hf.state_dict().values()}
    lens, pairs = EdgeLens(model), drawn_pairs(2)
    edge_scores(lens, pairs, "eap-ig-inputs", steps=2)
    others = {
        name
        for name, tensor in lens.bridge.named_parameters()
        if tensor.untyped_storage().data_ptr() not in own and tensor.any()  # TransformerLens adds biases of zeros
    }
    # It divides a fused projection of query, key and value into three weights of its own.
    assert len(others) == (3 * model.n_layers if arch == "gpt_neox-serial" else 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.hf.state_dict().items())
    # The modules are its own, so an edit of the model reaches none of its passes.
    with pytest.raises(ProbeError, match="no forward pass reached"), edit(model, {"embed": torch.ones(model.d_model)}):
        lens.logits(pairs.clean[0])


@pytest.mark.parametrize("arch", ["gemma2", "gemma3", "olmo2", "gpt_neox"])
def test_models_whose_edges_are_others_are_refused(arch, tiny_folder):
    with pytest.raises(NotApplicable, match=r"does not add up|cannot separate|read the same residual stream"):
        EdgeLens(load_model(ModelConfig(str(tiny_folder(arch))), device="cpu"))


def test_rows_may_keep_edges_of_their_own(llama):
    lens = EdgeLens(llama)
    (clean, corrupt, *_) = next(iter(drawn_pairs()))
    keep = torch.rand(len(clean), *lens.graph.edges.shape, generator=torch.Generator().manual_seed(0)) < 0.7
    keep &= lens.graph.edges
    together = lens.cut(clean, corrupt, keep)
    for i in range(len(clean)):
        one = lens.cut(clean[i : i + 1], corrupt[i : i + 1], keep[i])
        torch.testing.assert_close(together[i : i + 1], one, atol=1e-4, rtol=1e-4)


def test_single_edges_are_what_plain_hooks_make_of_them(llama):
    """An MLP to the logits, and a head to the values of a group in a later block, by transformers alone."""
    lens, hf = EdgeLens(llama), llama.hf
    (clean, corrupt, *_) = next(iter(drawn_pairs()))
    blocks = hf.model.layers
    taken: dict[str, torch.Tensor] = {}

    def take(name):
        return lambda _module, _args, output: taken.__setitem__(name, output)

    def heads(_module, args):
        taken["z"] = args[0]

    handles = [
        blocks[1].mlp.register_forward_hook(take("mlp")),
        blocks[0].self_attn.o_proj.register_forward_pre_hook(heads),
    ]
    with torch.no_grad():
        hf(clean)
        mine = dict(taken)
        hf(corrupt)
        theirs = dict(taken)
    for handle in handles:
        handle.remove()

    def without(name):
        keep = lens.graph.edges.clone()
        keep[lens.graph.edge(name)] = False
        return lens.cut(clean, corrupt, keep)

    final = hf.model.norm.register_forward_pre_hook(lambda _, args: (args[0] + theirs["mlp"] - mine["mlp"],))
    with torch.no_grad():
        expected = hf(clean).logits
    final.remove()
    torch.testing.assert_close(without("m1->logits"), expected, atol=1e-4, rtol=1e-4)

    size = hf.config.head_dim
    head, group, block = 2, 1, blocks[3]
    own = slice(size * head, size * head + size)
    apart = (theirs["z"] - mine["z"])[..., own] @ blocks[0].self_attn.o_proj.weight[:, own].T
    stream: dict[str, torch.Tensor] = {}
    part = slice(size * group, size * group + size)

    def values(module, _, output):
        output = output.clone()
        output[..., part] = (block.input_layernorm(stream["in"] + apart) @ module.weight.T)[..., part]
        return output

    handles = [
        block.register_forward_pre_hook(lambda _, args: stream.__setitem__("in", args[0])),
        block.self_attn.v_proj.register_forward_hook(values),
    ]
    with torch.no_grad():
        expected = hf(clean).logits
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(without("a0.h2->a3.g1<v>"), expected, atol=1e-4, rtol=1e-4)
    assert (without("a0.h2->a3.g1<v>") - lens.logits(clean)).abs().max() > 1e-3


@pytest.mark.parametrize(
    "name", ["embed->a1.h3<q>", "embed->a2.g1<k>", "embed->a0.g0<v>", "embed->m2", "embed->logits"]
)
def test_gradients_are_slopes(llama, name):
    """Against a small step of what the reader sees."""
    lens = EdgeLens(llama)
    (clean, _, right, wrong) = next(iter(drawn_pairs()))
    metric = logit_difference(right, wrong)
    _, column = lens.graph.edge(name)
    reader = lens.graph.readers[column]
    slopes = lens.gradients(clean, metric)[1][column]
    way = torch.randn(slopes.shape, generator=torch.Generator().manual_seed(0))
    at = dict(lens._readers())[reader.layer, reader.slot]

    def moved(step):
        def hook(value, **_):
            value = value.clone()
            if value.dim() == 4:
                value[:, :, reader.head] += step * way
            else:
                value += step * way
            return value

        with torch.no_grad(), lens.bridge.hooks(fwd_hooks=[(at, hook)]):
            return metric(lens.logits(clean))

    measured = (moved(1e-3) - moved(-1e-3)) / 2e-3
    torch.testing.assert_close((slopes * way).sum((1, 2)), measured, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("arch", ["llama", "qwen2", "gpt2"])
def test_bf16_edges_are_accepted_and_cut_alike(arch, tiny_folder):
    model = load_model(ModelConfig(str(tiny_folder(arch))), device="cpu", dtype="bfloat16")
    lens = EdgeLens(model)
    (clean, corrupt, *_) = next(iter(drawn_pairs()))
    with torch.no_grad():
        plain, other = lens.logits(clean), lens.logits(corrupt)
    near = 0.05 * float(plain.abs().max())
    torch.testing.assert_close(lens.cut(clean, corrupt, lens.graph.edges), plain, atol=near, rtol=0)
    torch.testing.assert_close(lens.cut(clean, corrupt, lens.graph.edges & False), other, atol=near, rtol=0)


@pytest.mark.parametrize("arch", ["gemma2", "gemma3", "gpt_neox"])
def test_bf16_models_whose_edges_differ_are_refused(arch, tiny_folder):
    with pytest.raises(NotApplicable, match=r"does not add up|cannot separate|read the same residual stream"):
        EdgeLens(load_model(ModelConfig(str(tiny_folder(arch))), device="cpu", dtype="bfloat16"))
