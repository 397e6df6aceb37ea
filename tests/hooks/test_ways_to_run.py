"""The many ways in which people run a model: each is followed rightly or refused in a sentence, none is guessed at."""

import gc
import weakref

import pytest
import torch
from transformers import DynamicCache

from probe.errors import ProbeError
from probe.hooks import Add, ProjectOut, Runner, Swap, Tokens, capture, causal_masks, edit
from probe.models import Site, load_model

PROMPTS = [[30, 31, 32, 33, 34, 35, 36], [40, 41, 42], [50, 51, 52, 53, 54]]
GREEDY = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}


@pytest.fixture
def llama(tiny_folder):
    return load_model(tiny_folder("llama", "letters"))


def left_padded():
    width = max(map(len, PROMPTS))
    ids, mask = torch.zeros(3, width, dtype=torch.long), torch.zeros(3, width, dtype=torch.long)
    for i, row in enumerate(PROMPTS):
        ids[i, width - len(row) :], mask[i, width - len(row) :] = torch.tensor(row), 1
    return ids, mask


@torch.no_grad()
def test_nothing_after_a_rows_end_counts(llama):
    """A batch whose rows end apart gives what each row gives alone; what is fed after the end is no text."""
    ids, mask = left_padded()
    alone, ends = [], None
    free = [llama.hf.generate(torch.tensor([row]), max_new_tokens=6, **GREEDY)[0, len(row) :] for row in PROMPTS]
    ends = int(free[0][2])  # the first row ends after two more tokens
    kinds = GREEDY | {"eos_token_id": ends, "max_new_tokens": 6}
    for row in PROMPTS:
        own = torch.tensor([row])
        with capture(llama, "resid_post.1", tokens=Tokens(phase="generation"), pool="mean") as acts:
            llama.hf.generate(own, attention_mask=torch.ones_like(own), **kinds)
        alone.append(acts["resid_post.1"])
    with capture(llama, "resid_post.1", tokens=Tokens(phase="generation")) as each:
        llama.hf.generate(ids, attention_mask=mask, **kinds)
    with capture(llama, "resid_post.1", tokens=Tokens(phase="generation"), pool="mean") as acts:
        llama.hf.generate(ids, attention_mask=mask, **kinds)
    assert (each.rows == 0).sum() == 2
    torch.testing.assert_close(acts["resid_post.1"], torch.cat(alone), atol=2e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_padding_is_known_whatever_the_cache(llama, kind):
    ids, mask = left_padded()
    extra = {} if kind == "dynamic" else {"cache_implementation": "static"}
    with capture(llama, "embed", tokens=Tokens(positions=[0, -1])) as acts:
        llama.hf.generate(ids, attention_mask=mask, max_new_tokens=3, **GREEDY, **extra)
    assert list(zip(acts.rows.tolist(), acts.positions.tolist(), strict=True)) == [
        (0, 0), (0, 6), (1, 0), (1, 2), (2, 0), (2, 4),
    ]  # fmt: skip


@torch.no_grad()
def test_masks_given_by_position_or_in_four_dimensions(llama):
    ids, mask = left_padded()
    first = Tokens(positions=0)
    with capture(llama, "embed", tokens=first) as acts:
        llama.hf.base_model(ids, mask)
    assert torch.equal(acts["embed"], llama.hf.get_input_embeddings().weight[[30, 40, 50]])
    with (
        pytest.raises(ProbeError, match="does not distinguish tokens"),
        capture(llama, "embed", tokens=first),
    ):
        llama.hf(ids, attention_mask=causal_masks(llama, mask.bool(), ids.shape[1]))
    inferred = {"max_new_tokens": 2, "cache_implementation": "static", **GREEDY}
    with pytest.raises(ProbeError, match="give generate an attention_mask"), capture(llama, "embed", tokens=first):
        llama.hf.generate(ids, **inferred)


@torch.no_grad()
def test_a_second_turn_on_the_same_cache(llama):
    cache, first = DynamicCache(), torch.tensor([PROMPTS[0]])
    said = llama.hf.generate(first, past_key_values=cache, max_new_tokens=5, **GREEDY)
    second = torch.cat([said, torch.tensor([[60, 61, 62, 63]])], 1)
    new = Tokens(phase="generation")
    with capture(llama, "embed", tokens=new) as acts:
        llama.hf.generate(second, past_key_values=cache, max_new_tokens=4, **GREEDY)
    assert acts.positions.tolist() == [16, 17, 18]
    cache.crop(11 - cache.get_seq_length())
    with (
        pytest.raises(ProbeError, match="give the number of columns"),
        capture(llama, "embed", tokens=new),
    ):
        llama.hf(second[:, 11:], past_key_values=cache)
    cache.crop(11 - cache.get_seq_length())
    with capture(llama, "embed", tokens=new, prompt_width=14) as acts:
        llama.hf(second[:, 11:], past_key_values=cache)
    assert acts.positions.tolist() == [14, 15]


@torch.no_grad()
def test_columns_that_are_run_again_count_once(llama):
    """A cache that is cut back: what was rejected is not part of the text."""
    ids, cache = torch.tensor([PROMPTS[0]]), DynamicCache()
    with (
        capture(llama, "resid_post.1") as whole,
        capture(llama, "resid_post.1", tokens=Tokens(window=(1, None))) as some,
    ):
        llama.hf(ids, past_key_values=cache)
        llama.hf(torch.tensor([[70, 71, 72]]), past_key_values=cache)
        cache.crop(-2)
        llama.hf(torch.tensor([[80]]), past_key_values=cache)
    with capture(llama, "resid_post.1") as expected:
        llama.hf(torch.tensor([[*PROMPTS[0], 70, 80]]))
    torch.testing.assert_close(whole["resid_post.1"], expected["resid_post.1"], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(some["resid_post.1"], expected["resid_post.1"][0, 1:], atol=2e-5, rtol=1e-4)
    assert some.positions.tolist() == list(range(1, 9))


@torch.no_grad()
def test_a_decoding_step_that_is_repeated_counts_as_repeated(llama):
    runner = Runner(llama, PROMPTS, 3, steer=1)
    with capture(llama, ["resid_post.0", "resid_post.2"]) as whole:
        with capture(llama, "resid_post.2", tokens=Tokens(positions=-1)) as last:
            step = runner.prefill()
            plain = whole["resid_post.2"].clone()
            runner.rerun(step.resid[1][1:2] + 1.0, torch.tensor([1]))
        runner.step(torch.tensor([5, 6, 7]))
    assert whole["resid_post.2"].shape == whole["resid_post.0"].shape == (3, 8, llama.d_model)
    again = whole["resid_post.2"][:, :7]
    assert torch.equal(again[[0, 2]], plain[[0, 2]]) and torch.equal(again[1, :6], plain[1, :6])
    assert not torch.equal(again[1, 6], plain[1, 6])
    assert last.rows.tolist() == [0, 1, 2] and torch.equal(last["resid_post.2"], again[:, -1])


@torch.no_grad()
def test_tokens_that_are_taken_back_are_refused(llama):
    ids, mask = left_padded()
    with (
        pytest.raises(ProbeError, match="generate with num_beams runs tokens and discards them"),
        capture(llama, "embed"),
    ):
        llama.hf.generate(ids, attention_mask=mask, num_beams=2, max_new_tokens=3, **GREEDY)
    with edit(llama, {"resid_post.1": torch.ones(llama.d_model)}):  # every token alike: nothing needs to be known
        llama.hf.generate(ids, attention_mask=mask, num_beams=2, max_new_tokens=3, **GREEDY)


@torch.no_grad()
def test_blocks_in_blocks_all_get_what_they_want(llama):
    ids, ran = torch.tensor([PROMPTS[0]]), []
    for i, block in enumerate(llama.layers):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    for sites in ((0, 2), (2, 0)):
        ran.clear()
        with capture(llama, f"resid_post.{sites[0]}") as one, capture(llama, f"resid_post.{sites[1]}") as other:
            llama.hf(ids)
        assert set(one) | set(other) == {"resid_post.0", "resid_post.2"}
        assert 3 not in ran
    with edit(llama, {"resid_post.3": torch.ones(32)}), capture(llama, "resid_post.1"):
        llama.hf(ids)
    with capture(llama, "resid_post.1"), capture(llama, "resid_post.0", stop=False):
        assert llama.hf(ids).logits.shape[1] == ids.shape[1]


@torch.no_grad()
def test_a_pass_that_fails_leaves_nothing_of_the_one_before(llama):
    with capture(llama, ["resid_post.0", "resid_post.2"]) as acts:
        llama.hf(torch.tensor([PROMPTS[0]]))
        handle = llama.layers[1].register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            llama.hf(torch.tensor([PROMPTS[1]]))
        assert acts["resid_post.0"].shape[1] == 3 and "resid_post.2" not in acts
        handle.remove()
        llama.hf(torch.tensor([PROMPTS[2]]))
    assert acts["resid_post.2"].shape[1] == 5


@torch.no_grad()
def test_looking_does_not_change_what_is_looked_at(llama):
    """A capture open while a batch is decoded and steered: the upper layers are the upper layers still."""

    def decode():
        runner = Runner(llama, PROMPTS, 4, steer=1)
        step, out = runner.prefill(), []
        for _ in range(3):
            logits = runner.rerun(step.resid[1] + 1.0, torch.arange(3))
            out.append(logits)
            step = runner.step(logits.argmax(-1))
        return torch.stack(out)

    plain = decode()
    with capture(llama, "resid_post.0", tokens=Tokens(phase="generation")):
        assert torch.equal(decode(), plain)


@torch.no_grad()
@pytest.mark.parametrize("order", [("resid_mid.1", "attn_out.1"), ("attn_out.1", "resid_mid.1")])
def test_the_middle_of_a_block_is_edited_after_its_attention(llama, order):
    """Whatever is done to the attention, what is put in the middle is there, and only there."""
    ids, state = torch.tensor([PROMPTS[0]]), torch.randn(32, generator=torch.Generator().manual_seed(0))
    changes = {"resid_mid.1": Swap(state), "attn_out.1": torch.zeros_like}
    read = ["attn_out.1", "resid_mid.1", "mlp_out.1", "resid_post.1"]
    with edit(llama, {site: changes[site] for site in order}), capture(llama, read) as acts:
        llama.hf(ids)
    assert acts["attn_out.1"].abs().max() == 0
    assert torch.equal(acts["resid_mid.1"], state.expand_as(acts["resid_mid.1"]))
    torch.testing.assert_close(acts["resid_post.1"], acts["resid_mid.1"] + acts["mlp_out.1"])


@torch.no_grad()
def test_a_prompt_patched_and_then_gone_on_with(llama):
    """A state of the prompt's size is put in at the prompt; the steps of decoding, of another size, are left alone."""
    ids = torch.tensor([PROMPTS[0]])
    with capture(llama, "resid_post.3", stop=False) as donor:
        llama.hf(torch.tensor([list(reversed(PROMPTS[0]))]))
    with edit(llama, {"resid_post.3": Swap(donor["resid_post.3"], tokens=Tokens(phase="prompt"))}):
        patched = llama.hf.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, **GREEDY)
    donated = llama.hf.generate(torch.tensor([list(reversed(PROMPTS[0]))]), max_new_tokens=1, **GREEDY)
    assert patched[0, 7] == donated[0, 7]


def test_what_works_in_place_is_refused(llama):
    def in_place(hidden):
        hidden[:, 0] += 1
        return hidden

    with pytest.raises(ProbeError, match="works in place"), torch.no_grad(), edit(llama, {"embed": in_place}):
        llama.hf(torch.tensor([PROMPTS[0]]))
    with pytest.raises(ProbeError, match="returned NoneType"), torch.no_grad(), edit(llama, {"embed": lambda _: None}):
        llama.hf(torch.tensor([PROMPTS[0]]))


def test_a_direction_that_is_learned_stays_in_the_graph(llama):
    ids, direction = torch.tensor([PROMPTS[0]]), torch.randn(32, requires_grad=True)
    operation, seen = ProjectOut(direction), []
    with torch.no_grad(), edit(llama, {"resid_post.1": operation}):
        llama.hf(ids)
    for _ in range(2):
        with edit(llama, {"resid_post.1": operation}):
            llama.hf(ids).logits[0, -1, 9].backward()
        seen.append(direction.grad.clone())
        direction.grad = None
        with torch.no_grad():
            direction += torch.randn(32)
    assert seen[0].abs().max() > 0 and not torch.equal(seen[0], seen[1])
    strength = torch.tensor(1.0, requires_grad=True)
    with edit(llama, {"resid_post.1": Add(torch.ones(32), strength)}):
        llama.hf(ids).logits[0, -1, 9].backward()
    assert strength.grad is not None and strength.grad.abs() > 0


@torch.no_grad()
def test_half_precision_loses_nothing_to_the_operation():
    hidden, v = torch.randn(4, 512).bfloat16(), torch.randn(512)
    unit = v / v.norm()
    hidden = (hidden.float() + 50 * unit).bfloat16()
    left = (ProjectOut(v)(hidden).float() @ unit).abs().max()
    assert left < 0.02


@torch.no_grad()
def test_a_boolean_mask_stays_one_under_a_pattern(llama):
    ids = torch.tensor([PROMPTS[0]])
    mask = torch.ones(7, 7).tril().bool()[None, None]
    plain = llama.hf(ids, attention_mask=mask).logits
    with capture(llama, "pattern.1", stop=False) as acts:
        seen = llama.hf(ids, attention_mask=mask).logits
    assert acts["pattern.1"].triu(1).abs().max() == 0
    torch.testing.assert_close(seen, plain, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_what_has_no_state_a_token_cannot_be_selected(tiny_folder):
    model = load_model(tiny_folder("gemma3", "letters"))
    site = "model.layers.1.self_attn.q_norm"  # [batch, heads, pos, d_head]
    ids = torch.tensor([PROMPTS[0]])
    with (
        pytest.raises(ProbeError, match="not have one state for each token"),
        capture(model, site, tokens=Tokens(positions=-1)),
    ):
        model.hf(ids)
    with (
        pytest.raises(ProbeError, match="not have one state for each token"),
        edit(model, {site: torch.zeros_like}, tokens=Tokens(ids=31)),
    ):
        model.hf(ids)


@torch.no_grad()
def test_the_last_logits_alone_are_told_apart(llama):
    ids, mask = left_padded()
    with capture(llama, ["resid_post.1", "logits"], tokens=Tokens(window=(0, None))) as acts:
        llama.hf.generate(ids, attention_mask=mask, max_new_tokens=2, **GREEDY)
    assert len(acts["logits"]) == 3 + 3 and len(acts["resid_post.1"]) == 7 + 3 + 5 + 3
    with pytest.raises(ProbeError, match="the sites have different tokens"):
        _ = acts.rows


@torch.no_grad()
def test_spans_that_end_beyond_the_text_are_told(llama):
    ids, mask = left_padded()
    spans = [[(0, 2), (9, 12)], [(1, 3)], [(3, 9)]]
    with capture(llama, "embed", tokens=Tokens(spans=spans), pool="mean") as acts:
        llama.hf(ids, attention_mask=mask)
    assert acts.spans.tolist() == [0, 2, 3]
    with (
        pytest.raises(ProbeError, match="a single clause with all the spans"),
        capture(llama, "embed", tokens=Tokens(spans=spans) | Tokens(spans=spans), pool="mean"),
    ):
        pass


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's, of transformers
@torch.no_grad()
def test_a_model_with_an_adapter_is_read_where_it_lies(llama):
    peft = pytest.importorskip("peft")
    ids = torch.tensor([PROMPTS[0]])
    adapted = peft.get_peft_model(llama.hf, peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    with capture(adapted, "resid_post.2", tokens=Tokens(positions=-1)) as acts:
        adapted.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=2, **GREEDY)
    states = adapted(ids, output_hidden_states=True).hidden_states
    torch.testing.assert_close(acts["resid_post.2"][0], states[3][0, -1], atol=1e-5, rtol=1e-5)


def test_what_is_no_model_is_refused():
    linear = torch.nn.Linear(2, 2)
    with pytest.raises(ProbeError, match="a Linear cannot be read; give a Model"), capture(linear, "embed"):
        pass
    with pytest.raises(ProbeError, match="a Linear cannot be read"), edit(linear, {"embed": torch.ones(2)}):
        pass


@torch.no_grad()
def test_what_was_captured_holds_no_cache(llama):
    cache = DynamicCache()
    alive = weakref.ref(cache)
    with capture(llama, "embed", tokens=Tokens(positions=-1)) as acts:
        llama.hf(torch.tensor([PROMPTS[0]]), past_key_values=cache)
    del cache
    gc.collect()
    assert alive() is None and len(acts["embed"]) == 1


@torch.no_grad()
def test_a_model_that_was_read_and_written_can_be_freed(tiny_folder):
    model = load_model(tiny_folder("gpt2", "letters"))
    alive = weakref.ref(model.hf)
    with edit(model, {"z.1": torch.zeros_like}), capture(model, ["pattern.1", "embed"]):
        model.hf(torch.tensor([PROMPTS[0]]))
    del model
    gc.collect()
    assert alive() is None


@torch.no_grad()
def test_a_pass_that_was_ended_says_so(llama):
    with capture(llama, "resid_post.1"), pytest.raises(ProbeError, match=r"has no logits; use capture\(stop=False\)"):
        _ = llama.hf(torch.tensor([PROMPTS[0]])).logits


@torch.no_grad()
def test_a_capture_can_always_be_shown(llama):
    ids, mask = left_padded()
    with capture(llama, ["pattern.1", "embed"], stop=False) as acts:
        assert repr(acts) == "Captured()" and "<table>" in acts._repr_html_()
        llama.hf.generate(ids, attention_mask=mask, max_new_tokens=3, **GREEDY)
        assert "pattern.1: 3 passes, the last [3, 4, 1, 9]" in repr(acts)
    assert acts.get("resid_post.1") is None


@torch.no_grad()
def test_names_of_transformer_lens_are_understood(llama):
    assert Site.parse("blocks.2.hook_resid_post") == Site("resid_post", 2)
    assert Site.parse("unembed.hook_out") == Site("logits")
    with capture(llama, "blocks.1.attn.hook_z") as acts:
        llama.hf(torch.tensor([PROMPTS[0]]))
    assert list(acts) == ["z.1"]
    twice = {"resid_post.1": torch.ones(32), "blocks.1.hook_resid_post": torch.ones(32)}
    with pytest.raises(ProbeError, match="appears twice"), edit(llama, twice):
        pass


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ({"spans": [(0, 3)]}, r"give a list of \(start, stop\) for each row"),
        ({"window": 3}, "give .start, stop."),
        ({"window": (0,)}, "give .start, stop."),
        ({"positions": "last"}, "give a whole number"),
        ({"positions": [0.5]}, "give a whole number"),
        ({"ids": "the"}, "give a whole number"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_numbers_that_are_none(kinds, said):
    with pytest.raises(ProbeError, match=said):
        Tokens(**kinds)


@torch.no_grad()
def test_numbers_of_any_kind(llama):
    for one in (3, torch.tensor(3), torch.tensor([3]), {3}, range(3, 4)):
        with capture(llama, "embed", tokens=Tokens(positions=one)) as acts:
            llama.hf(torch.tensor([PROMPTS[0]]))
        assert acts.positions.tolist() == [3]


@torch.no_grad()
def test_a_gate_cannot_look_at_what_has_not_run(llama):
    ids, mask = left_padded()
    gate = Tokens(mask=lambda now: seen.latest("resid_post.3")[..., 0] > 0 if now.width == 1 else now.real)
    with (
        pytest.raises(ProbeError, match=r"has not reached resid_post\.3; a mask can only read sites before its own"),
        capture(llama, "resid_post.3", stop=False) as seen,
        edit(llama, {"resid_post.2": Add(torch.ones(32), tokens=gate)}),
    ):
        llama.hf.generate(ids, attention_mask=mask, max_new_tokens=4, **GREEDY)


def test_operations_show_themselves_in_short():
    assert repr(Add(torch.zeros(9), 2.0, tokens=Tokens(ids=3))) == (
        "Add(tokens=Tokens(ids=3), vector=<float32 [9]>, strength=2.0)"
    )
