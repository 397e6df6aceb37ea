"""Operations: what each does to a state, alone and in order, and what it refuses."""

import pytest
import torch
from hypothesis import given, strategies as st

from probe.errors import ProbeError
from probe.hooks import Add, Apply, Clamp, ProjectOut, Scale, Swap, Tokens, capture, edit
from probe.models import load_model


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 99), n=st.integers(1, 4))
def test_projecting_out_leaves_nothing_along_the_directions_and_all_else(seed, n):
    hidden, directions = draw(5, 16, seed=seed), draw(n, 16, seed=seed + 1) * 3
    new = ProjectOut(directions)(hidden)
    torch.testing.assert_close(new @ directions.T, torch.zeros(5, n), atol=1e-4, rtol=0)
    torch.testing.assert_close(ProjectOut(directions)(new), new)
    lost = hidden - new
    assert torch.linalg.matrix_rank(torch.cat([directions, lost]), tol=1e-3) == n


@given(seed=st.integers(0, 99), bounds=st.tuples(st.floats(-2, 2), st.floats(-2, 2)).map(sorted))
def test_clamping_holds_the_coordinate_and_nothing_else(seed, bounds):
    hidden, direction = draw(7, 16, seed=seed), draw(16, seed=seed + 1) * 5
    low, high = bounds
    new, unit = Clamp(direction, low, high)(hidden), direction / direction.norm()
    torch.testing.assert_close(new @ unit, (hidden @ unit).clamp(low, high), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ProjectOut(direction)(new), ProjectOut(direction)(hidden), atol=1e-5, rtol=1e-5)
    assert (Clamp(direction, low=low)(hidden) @ unit).min() >= low - 1e-5
    assert (Clamp(direction, high=high)(hidden) @ unit).max() <= high + 1e-5


def test_scaling_a_part():
    hidden, direction = draw(7, 16), draw(16, seed=1)
    torch.testing.assert_close(Scale(0.0, direction)(hidden), ProjectOut(direction)(hidden))
    torch.testing.assert_close(Scale(1.0, direction)(hidden), hidden)
    torch.testing.assert_close(Scale(-2.0)(hidden), -2 * hidden)


def test_half_precision_stays_half():
    hidden = draw(2, 3, 16).bfloat16()
    v = draw(16, seed=1)
    for operation in (Add(v, 2.0), ProjectOut(v), Clamp(v, 0.0, 0.0), Scale(2.0, v), Swap(v)):
        assert operation(hidden).dtype == torch.bfloat16
        assert operation(hidden).shape == hidden.shape


@torch.no_grad()
@pytest.mark.parametrize("site", ["resid_mid.1", "resid_post.1", "attn_out.2", "embed"])
def test_several_changes_are_carried_out_in_order(tiny_folder, site):
    """Add then remove leaves nothing of the vector; remove then add leaves all of it; each at its own tokens."""
    model = load_model(tiny_folder("llama", "letters"))
    ids, v = torch.tensor([[5, 6, 7, 8]]), draw(model.d_model)
    with capture(model, site) as plain:
        model.hf(ids)
    bare = ProjectOut(v)(plain[site])
    for changes, expected in (
        ([Add(v), ProjectOut(v)], bare),
        ([ProjectOut(v), v], bare + v),
        ([ProjectOut(v), Add(v, 2.0), lambda hidden: -hidden], -(bare + 2 * v)),
    ):
        with edit(model, {site: changes}), capture(model, site, stop=False) as acts:
            model.hf(ids)
        torch.testing.assert_close(acts[site], expected, atol=1e-5, rtol=1e-5)
    late, first = Tokens(window=(2, None)), Tokens(positions=0)
    changes = [Add(v, tokens=late), Scale(0.0, tokens=first)]
    with edit(model, {site: changes}), capture(model, site, stop=False) as acts:
        model.hf(ids)
    expected = plain[site].clone()
    expected[:, 2:] += v
    expected[:, 0] = 0
    torch.testing.assert_close(acts[site], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_tokens_of_the_edit_hold_for_changes_without_their_own(tiny_folder):
    model = load_model(tiny_folder("llama", "letters"))
    ids, v = torch.tensor([[5, 6, 7, 8]]), draw(model.d_model)
    own = Add(v, tokens=Tokens(positions=3))
    changes = {"embed": [v, own, torch.zeros_like]}
    with edit(model, changes, tokens=Tokens(positions=[1, 2])), capture(model, "embed") as acts:
        model.hf(ids)
    plain = model.hf.get_input_embeddings()(ids)
    torch.testing.assert_close(acts["embed"], torch.stack([plain[:, 0], *[plain[:, 0] * 0] * 2, plain[:, 3] + v], 1))


@torch.no_grad()
def test_swapping_a_state_in_from_another_text(model, ids):
    """Patching the last site before the logits carries the other text's answer over, at the tokens patched."""
    with capture(model, "resid_post.3", stop=False) as donor:
        logits = model.hf(ids[:1]).logits
    with edit(model, {"resid_post.3": Swap(donor["resid_post.3"], tokens=Tokens(positions=-1))}):
        patched = model.hf(ids[1:2]).logits
    torch.testing.assert_close(patched[0, -1], logits[0, -1])
    torch.testing.assert_close(patched[0, :-1], model.hf(ids[1:2]).logits[0, :-1])


@torch.no_grad()
def test_heads_and_fused_projections_are_written_where_they_are(model, ids):
    """Each of q, k, v, z and the neurons, swapped with another text's, all at once: that text's block output."""
    parts = [f"{kind}.1" for kind in ("q", "k", "v")]
    with capture(model, [*parts, "z.1", "attn_out.1"], stop=False) as donor:
        model.hf(ids[:1])
    with edit(model, {site: Swap(donor[site]) for site in parts}), capture(model, ["z.1", "attn_out.1"]) as acts:
        model.hf(ids[1:2])
    torch.testing.assert_close(acts["z.1"], donor["z.1"])
    torch.testing.assert_close(acts["attn_out.1"], donor["attn_out.1"])
    with edit(model, {"z.1": lambda z: z * torch.tensor([0.0, 1, 1, 1])[:, None]}), capture(model, "z.1") as acts:
        model.hf(ids[:1])
    assert acts["z.1"][:, :, 0].abs().max() == 0
    assert torch.equal(acts["z.1"][:, :, 1:], donor["z.1"][:, :, 1:])
    with capture(model, ["mlp_post.1", "mlp_out.1"], stop=False) as donor:
        model.hf(ids[:1])
    with edit(model, {"mlp_post.1": Swap(donor["mlp_post.1"])}), capture(model, "mlp_out.1") as acts:
        model.hf(ids[1:2])
    torch.testing.assert_close(acts["mlp_out.1"], donor["mlp_out.1"])


@torch.no_grad()
def test_a_pattern_is_written_too(model, ids):
    """Every query looks at the first token alone: its value, at every place of every head."""
    only_first = torch.zeros(ids.shape[1], ids.shape[1])
    only_first[:, 0] = 1
    before = model.hf.config._attn_implementation
    with edit(model, {"pattern.1": Swap(only_first)}), capture(model, ["v.1", "z.1"]) as acts:
        model.hf(ids)
    value = acts["v.1"][:, :1].repeat_interleave(acts["z.1"].shape[2] // acts["v.1"].shape[2], 2)
    torch.testing.assert_close(acts["z.1"], value.expand_as(acts["z.1"]))
    assert model.hf.config._attn_implementation == before
    with (
        edit(model, {"pattern.1": Swap(only_first, tokens=Tokens(positions=4))}),
        capture(model, ["v.1", "z.1"]) as some,
    ):
        model.hf(ids)
    with capture(model, "z.1") as plain:
        model.hf(ids)
    torch.testing.assert_close(some["z.1"][:, 4], value.squeeze(1))
    torch.testing.assert_close(some["z.1"][:, :4], plain["z.1"][:, :4], atol=1e-4, rtol=1e-4)


def test_gradients_reach_what_is_added_in_order(tiny_folder):
    model = load_model(tiny_folder("llama", "letters"))
    v = torch.zeros(32, requires_grad=True)
    with edit(model, {"resid_post.1": [Add(v, 2.0, tokens=Tokens(positions=-1)), Apply(torch.tanh)]}):
        model.hf(torch.tensor([[5, 6, 7]])).logits[0, -1, 9].backward()
    assert v.grad is not None and v.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ProjectOut(torch.zeros(8)), "zero or linearly dependent"),
        (lambda: ProjectOut(torch.ones(2, 8)), "zero or linearly dependent"),
        (lambda: Clamp(torch.ones(8)), "Clamp needs a bound"),
        (lambda: Clamp(torch.ones(8), 2.0, 1.0), "low=2.0 above high=1.0"),
        (lambda: Clamp(torch.zeros(8), 1.0), "is zero"),
        (lambda: Scale(1.0, torch.zeros(8)), "is zero"),
    ],
)
def test_operations_that_make_no_sense(make, said):
    with pytest.raises(ProbeError, match=said):
        make()


@torch.no_grad()
def test_changes_that_do_not_fit(tiny_folder):
    model = load_model(tiny_folder("llama", "letters"))
    ids = torch.tensor([[5, 6, 7]])
    with pytest.raises(ProbeError, match="the list of changes at embed is empty"), edit(model, {"embed": []}):
        pass
    with (
        pytest.raises(ProbeError, match=r"edit at z\.1 does not fit shape \[1, 3, 4, 8\]"),
        edit(model, {"z.1": draw(32)}),
    ):
        model.hf(ids)
    narrow = {"resid_post.0": lambda hidden: hidden[..., :5]}
    with pytest.raises(ProbeError, match=r"gives shape \[1, 3, 5\]"), edit(model, narrow):
        model.hf(ids)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.hf.modules())
