"""The batch under way: what cached, padded, shifted, shrinking batches give is what a plain forward pass gives."""

import pytest
import torch

from probe.errors import ProbeError
from probe.hooks import Runner, UpperLayers, capture, causal_masks, edit, force, forced_pass
from probe.models import ModelConfig, load_model

PROMPTS = [list(range(6, 17)), list(range(30, 34)), list(range(50, 75))]


@pytest.fixture
def model(decoding_arch, tiny_folder):
    return load_model(ModelConfig(str(tiny_folder(decoding_arch, tokenizer="letters"))), device="cpu")


def close(model, got, wanted):
    """Linear attention computes whole texts in chunks: transformers' own cached decoding is off by 3e-5 there."""
    torch.testing.assert_close(got, wanted, atol=1e-4 if model.state_layers else 2e-5, rtol=1e-4)


def plain(model, ids):
    """Logits of every position of one row, by transformers alone."""
    with torch.no_grad():
        return model.hf(torch.tensor([ids])).logits[0]


def test_cached_padded_batch_equals_plain_rows(model):
    """25 tokens are more than the sliding window of the Gemma models."""
    runner = Runner(model, PROMPTS, 6, read=[2])
    step, texts = runner.prefill(), [list(prompt) for prompt in PROMPTS]
    for _ in range(5):
        for row, text in enumerate(texts):
            close(model, step.logits[row], plain(model, text)[-1])
        tokens = step.logits.argmax(-1)
        texts = [[*text, token] for text, token in zip(texts, tokens.tolist(), strict=True)]
        step = runner.step(tokens)


def test_rows_that_leave_do_not_disturb_the_others(model):
    runner = Runner(model, PROMPTS, 6)
    runner.prefill()
    runner.step(torch.tensor([7, 8, 9]))
    runner.keep(torch.tensor([0, 2]))
    runner.step(torch.tensor([10, 11]))
    runner.keep(torch.tensor([1]))
    step = runner.step(torch.tensor([12]))
    close(model, step.logits[0], plain(model, [*PROMPTS[2], 9, 11, 12])[-1])


def test_persistent_shift_equals_full_forward_with_the_same_shift(model):
    """Steered at one step in one row: that step's logits and all later ones are those of an uncached edited pass."""
    runner = Runner(model, PROMPTS, 6, steer=1)
    step = runner.prefill()
    shift = torch.randn(1, model.d_model, generator=torch.Generator().manual_seed(0))
    steered = runner.rerun(step.resid[1][1:2] + shift, torch.tensor([1]))
    first = int(steered.argmax())
    later = runner.step(torch.tensor([5, first, 5])).logits[1]
    position = len(PROMPTS[1]) - 1

    def add(hidden):
        hidden = hidden.clone()
        hidden[:, position] += shift[0]
        return hidden

    with edit(model, {"resid_post.1": add}):
        full = plain(model, [*PROMPTS[1], first])
    close(model, steered[0], full[-2])
    close(model, later, full[-1])
    assert (steered[0] - step.logits[1]).abs().max() > 1e-3


def test_transient_shift_leaves_the_cache_alone(model):
    runner = Runner(model, PROMPTS, 6, steer=1)
    step = runner.prefill()
    shift = torch.randn(3, model.d_model, generator=torch.Generator().manual_seed(0))
    once = runner.rerun(step.resid[1] + shift, torch.arange(3), persistent=False)
    assert (once - step.logits).abs().max() > 1e-3
    later = runner.step(torch.tensor([5, 6, 7])).logits
    for row, token in enumerate((5, 6, 7)):
        close(model, later[row], plain(model, [*PROMPTS[row], token])[-1])


def test_rerun_without_a_shift_changes_nothing(model):
    runner = Runner(model, PROMPTS, 6, steer=1)
    step = runner.prefill()
    close(model, runner.rerun(step.resid[1], torch.arange(3)), step.logits)


def test_upper_layers_share_the_weights_and_carry_gradients(model):
    upper = UpperLayers(model, 1)
    forced = force(model, [PROMPTS[0]], [[5, 6, 7]])
    with capture(model, "resid_post.1", stop=False) as acts:
        logits = forced_pass(model, forced).logits
    hidden = acts["resid_post.1"]
    shift = torch.zeros(model.d_model, requires_grad=True)
    again = upper(
        hidden + shift,
        attention_mask=causal_masks(model, forced.valid, hidden.shape[1]),
        position_ids=forced.positions,
    )
    close(model, again[:, -4:-1].detach(), logits)
    again.sum().backward()
    assert shift.grad is not None and shift.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in model.hf.parameters())
    assert len(model.layers) == 4


def test_teacher_forcing_aligns_each_emitted_token_with_what_predicts_it(model):
    texts = [[5, 6, 7, 8], [9]]
    ran = forced_pass(model, force(model, PROMPTS[:2], texts), "resid_post.2")
    for row, (prompt, text) in enumerate(zip(PROMPTS, texts, strict=False)):
        full = plain(model, [*prompt, *text])[len(prompt) - 1 : -1]
        close(model, ran.logits[row, : len(text)], full)
    whole, states, own = ran.whole["resid_post.2"], ran.predicting("resid_post.2"), ran.at_tokens("resid_post.2")
    for row, (prompt, text) in enumerate(zip(PROMPTS, texts, strict=False)):
        begin, end = len(prompt) - 1, len(prompt) + len(text) - 1
        assert torch.equal(states[row, : len(text)], whole[row, begin:end])
        assert torch.equal(own[row, : len(text)], whole[row, begin + 1 : end + 1])


def test_a_forced_pass_without_logits_says_so(model):
    ran = forced_pass(model, force(model, PROMPTS[:1], [[5]]), "resid_post.1", logits=False)
    with pytest.raises(ProbeError, match="run without logits"):
        _ = ran.logits


@pytest.mark.parametrize("layer", [-1, 3])
def test_the_last_block_cannot_be_steered(tiny_folder, layer):
    model = load_model(ModelConfig(str(tiny_folder("llama"))), device="cpu")
    with pytest.raises(ValueError, match="layer must lie between 0 and 2"):
        UpperLayers(model, layer)


def test_equal_prompts_are_run_once_and_go_on_apart(model):
    """At the beginning and when rows are added, with rows of other lengths between them."""
    runner = Runner(model, [PROMPTS[0], PROMPTS[1], PROMPTS[0], PROMPTS[2]], 6, steer=1, remember=True)
    first = runner.prefill()
    for row, prompt in enumerate((0, 1, 0, 2)):
        close(model, first.logits[row], plain(model, PROMPTS[prompt])[-1])
    runner.keep(torch.tensor([0, 2]), hold=True)
    texts = [[*PROMPTS[0], 5], [*PROMPTS[0], 6]]
    runner.step(torch.tensor([5, 6]))
    rows = []
    note = model.hf.register_forward_pre_hook(
        lambda _, __, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    runner.admit([PROMPTS[1], PROMPTS[1]])
    note.remove()
    assert rows == [1]
    step = runner.step(torch.tensor([7, 7, 8, 9]))
    texts = [[*texts[0], 7], [*texts[1], 7], [*PROMPTS[1], 8], [*PROMPTS[1], 9]]
    shift = torch.randn(4, model.d_model, generator=torch.Generator().manual_seed(0))
    shifted = runner.rerun_window(shift, torch.arange(4), None)
    for row, text in enumerate(texts):
        close(model, step.logits[row], plain(model, text)[-1])
        with edit(model, {"resid_post.1": lambda hidden, row=row: hidden + shift[row]}):
            close(model, shifted[row], plain(model, text)[-1])


def test_a_text_without_a_prompt_is_refused(tiny_folder):
    model = load_model(ModelConfig(str(tiny_folder("llama"))), device="cpu")
    with pytest.raises(ProbeError, match="a prompt has no token"):
        force(model, [[], [5]], [[6], [7]])


def test_rows_taken_in_later_do_not_disturb_the_others(model):
    """A longer prompt than any before, a place taken twice, and columns that run out."""
    runner = Runner(model, PROMPTS[:2], 3, read=[2])
    runner.prefill()
    texts = [[*PROMPTS[0], 7], [*PROMPTS[1], 8]]
    runner.step(torch.tensor([7, 8]))
    runner.keep(torch.tensor([1]), hold=True)
    new = runner.admit([PROMPTS[2]])
    close(model, new.logits[0], plain(model, PROMPTS[2])[-1])
    texts = [texts[1], list(PROMPTS[2])]
    for i in range(3):
        step = runner.step(torch.tensor([10 + i, 20 + i]))
        texts = [[*texts[0], 10 + i], [*texts[1], 20 + i]]
        for row, text in enumerate(texts):
            close(model, step.logits[row], plain(model, text)[-1])
    runner.keep(torch.tensor([1]), hold=True)
    runner.admit([PROMPTS[0]])
    step, texts = runner.step(torch.tensor([40, 41])), [[*texts[1], 40], [*PROMPTS[0], 41]]
    runner.keep(torch.tensor([1]), hold=True)
    runner.admit([PROMPTS[1]])
    step, texts = runner.step(torch.tensor([50, 51])), [[*texts[1], 50], [*PROMPTS[1], 51]]
    for row, text in enumerate(texts):
        close(model, step.logits[row], plain(model, text)[-1])


@pytest.mark.parametrize("window", [1, 3, None])
def test_a_window_run_again_equals_a_full_forward_with_the_same_shift(model, window):
    """Also of a row that was taken in later, and of rows named twice; and nothing of it stays."""
    runner = Runner(model, PROMPTS[:2], 6, steer=1, remember=True)
    runner.prefill()
    runner.step(torch.tensor([7, 8]))
    runner.keep(torch.tensor([1]), hold=True)
    runner.admit([PROMPTS[2]])
    runner.step(torch.tensor([9, 10]))
    texts = [[*PROMPTS[1], 8, 9], [*PROMPTS[2], 10]]
    shift = torch.randn(3, model.d_model, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([1, 0, 1])
    logits = runner.rerun_window(shift, rows, window)
    for i, row in enumerate(rows.tolist()):

        def add(hidden, i=i):
            hidden = hidden.clone()
            hidden[:, 0 if window is None else -window :] += shift[i]
            return hidden

        with edit(model, {"resid_post.1": add}):
            close(model, logits[i], plain(model, texts[row])[-1])
    later = runner.step(torch.tensor([5, 6])).logits
    for row, token in enumerate((5, 6)):
        close(model, later[row], plain(model, [*texts[row], token])[-1])


def test_all_columns_run_again_without_padding(model):
    """Two rows of one length, behind columns that are free: no mask is made for them."""
    runner = Runner(model, [PROMPTS[2], PROMPTS[0], PROMPTS[0][::-1]], 6, steer=1, remember=True)
    runner.prefill()
    runner.keep(torch.tensor([1, 2]))
    assert runner.cache.first > 0
    step = runner.step(torch.tensor([7, 8]))
    again = runner.rerun_window(torch.zeros(2, model.d_model), torch.arange(2), None)
    for row, text in enumerate([[*PROMPTS[0], 7], [*PROMPTS[0][::-1], 8]]):
        expected = plain(model, text)[-1]
        close(model, step.logits[row], expected)
        close(model, again[row], expected)


def test_no_row_is_taken_in_where_there_is_no_place_or_tokens_are_being_counted(tiny_folder):
    model = load_model(ModelConfig(str(tiny_folder("llama", tokenizer="letters"))), device="cpu")
    runner = Runner(model, PROMPTS[:2], 6)
    runner.prefill()
    with pytest.raises(RuntimeError, match="0 slots are free"):
        runner.admit([PROMPTS[2]])
    runner.keep(torch.tensor([0]), hold=True)
    with capture(model, "resid_post.1", stop=False):
        assert not runner.may_admit
        with pytest.raises(RuntimeError, match="a block is open"):
            runner.admit([PROMPTS[2]])
        runner.step(torch.tensor([5]))
    assert runner.may_admit
