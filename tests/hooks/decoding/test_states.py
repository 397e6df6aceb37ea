"""Blocks that keep a state of each row: nothing in it comes from padding, another row or a column that ran twice."""

import pytest
import torch
from transformers import AutoModelForImageTextToText

from probe.errors import NotApplicable
from probe.hooks import Runner, Tokens, UpperLayers, additive_masks, capture, causal_masks, edit
from probe.hooks.decoding.room import row_bytes
from probe.models import Model, load_model
from tests.supported_models import tokenizer
from tests.tiny_models import tiny_config, tiny_model

KERNEL = 4
PROMPTS = [[5], [6, 7], [8, 9, 10], list(range(20, 42)), [11]]
"""Shorter than the convolution, and longer."""
STEER = 1


KINDS = ("qwen3_next", "granitemoehybrid", "lfm2")
"""A delta rule; Mamba 2, whose convolution writes into its state; a convolution alone."""

MORE = (
    "qwen3_5",
    "qwen3_5_moe",
    "olmo_hybrid",
    "bamba",
    "nemotron_h",
    "falcon_h1",
    "jamba",
    "lfm2_moe",
    "lfm3",
)
CHANGES = {"nemotron_h": {"layers_block_type": ["full_attention", "moe", "linear_attention", "mlp"]}}


@pytest.fixture
def model(state_arch, tiny_folder):
    return load_model(tiny_folder(state_arch, "letters"))


@pytest.fixture(
    params=[
        *KINDS,
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in MORE),
        pytest.param("kimi_linear", marks=pytest.mark.long),  # its convolution writes into its state
    ]
)
def any_model(request):
    return Model(tiny_model(tiny_config(request.param, **CHANGES.get(request.param, {}))), tokenizer())


def shifted(model, ids, shifts=None):
    """The logits of every position of one row, by transformers without a cache; shifts are added at some positions."""

    def add(hidden):
        hidden = hidden.clone()
        for position, shift in (shifts or {}).items():
            hidden[:, position] += shift
        return hidden

    with torch.no_grad(), edit(model, {f"resid_post.{STEER}": add}):
        return model.hf(torch.tensor([ids])).logits[0]


def close(got, wanted):
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


def noise(model, rows, seed=0):
    return torch.randn(rows, model.d_model, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("persistent", [False, True])
def test_a_column_run_again_advances_the_state_once(any_model, persistent):
    """At every step, the first included, of short and long prompts and of rows that come later."""
    runner = Runner(any_model, PROMPTS[:4], 8, steer=STEER)
    step, texts, shifts = runner.prefill(), [list(prompt) for prompt in PROMPTS[:4]], [{}, {}, {}, {}]
    for at in range(5):
        if at == 2:  # two rows end, and others take their places
            runner.keep(torch.tensor([3, 1]), hold=True)
            step = step[torch.tensor([3, 1])] + runner.admit([PROMPTS[4], PROMPTS[2]])
            texts, shifts = [texts[3], texts[1], list(PROMPTS[4]), list(PROMPTS[2])], [shifts[3], shifts[1], {}, {}]
        for row, text in enumerate(texts):
            close(step.logits[row], shifted(any_model, text, shifts[row])[-1])
        some, added = torch.tensor([at % 4, 3 - at % 4]), noise(any_model, 2, at)
        again = runner.rerun(step.resid[STEER][some] + added, some, persistent=persistent)
        for i, row in enumerate(some.tolist()):
            now = shifts[row] | {len(texts[row]) - 1: added[i]}
            close(again[i], shifted(any_model, texts[row], now)[-1])
            shifts[row] = now if persistent else {}
        tokens = [30 + at, 40 + at, 50 + at, 55 + at]
        texts = [[*text, token] for text, token in zip(texts, tokens, strict=True)]
        step = runner.step(torch.tensor(tokens))


def test_trials_do_not_add_up(model):
    """A row that is named twice, then again, and at last steered for good."""
    runner = Runner(model, PROMPTS[2:4], 8, steer=STEER)
    step, added = runner.prefill(), noise(model, 3)
    rows = torch.tensor([1, 1, 0])
    for _ in range(2):
        again = runner.rerun(step.resid[STEER][rows] + added, rows, persistent=False)
    for i, row in enumerate(rows.tolist()):
        text = PROMPTS[2:4][row]
        close(again[i], shifted(model, text, {len(text) - 1: added[i]})[-1])
    runner.rerun(step.resid[STEER][1:] + added[:1], torch.tensor([1]))
    runner.rerun(step.resid[STEER][1:] + added[1:2], torch.tensor([1]))
    later = runner.step(torch.tensor([50, 51])).logits
    close(later[0], shifted(model, [*PROMPTS[2], 50])[-1])
    close(later[1], shifted(model, [*PROMPTS[3], 51], {len(PROMPTS[3]) - 1: added[1]})[-1])


def test_rows_that_change_places_take_their_states_with_them(model):
    runner = Runner(model, PROMPTS, 8, steer=STEER)
    runner.prefill()
    runner.step(torch.tensor([50, 51, 52, 53, 54]))
    runner.keep(torch.tensor([3, 0]))
    assert len(runner.cache.begin) == 2
    step, added = runner.step(torch.tensor([60, 61])), noise(model, 2)
    again = runner.rerun(step.resid[STEER] + added, torch.arange(2), persistent=False)
    for row, text in enumerate([[*PROMPTS[3], 53, 60], [*PROMPTS[0], 50, 61]]):
        close(step.logits[row], shifted(model, text)[-1])
        close(again[row], shifted(model, text, {len(text) - 1: added[row]})[-1])


def test_padding_on_the_left_and_on_the_right_gives_the_same(any_model):
    width = max(map(len, PROMPTS))
    for left in (False, True):
        ids = torch.full((len(PROMPTS), width), 3)
        valid = torch.zeros(len(PROMPTS), width, dtype=torch.bool)
        for row, prompt in enumerate(PROMPTS):
            at = slice(width - len(prompt), None) if left else slice(len(prompt))
            ids[row, at], valid[row, at] = torch.tensor(prompt), True
        positions = valid.long().cumsum(1).sub(1).clamp(min=0)
        masks = causal_masks(any_model, valid, width)
        with torch.no_grad():
            logits = any_model.hf(ids, attention_mask=masks, position_ids=positions, use_cache=False).logits
        for row, prompt in enumerate(PROMPTS):
            close(logits[row][valid[row]], shifted(any_model, prompt))


def test_a_change_above_the_steering_layer_reaches_the_state_from_which_a_column_is_run_again(model):
    """An edit that is open meanwhile, of all tokens."""
    shift = noise(model, 1, 7)[0]
    with edit(model, {"resid_pre.2": lambda hidden: hidden * 1.5 + shift}):
        runner = Runner(model, PROMPTS[3:], 4, steer=STEER)
        step = runner.prefill()
        again = runner.rerun(step.resid[STEER], torch.arange(2), persistent=False)
    close(again, step.logits)


def test_steering_while_a_block_tells_tokens_apart_is_refused(model):
    runner = Runner(model, PROMPTS, 4, steer=STEER)
    with (
        pytest.raises(NotApplicable, match="linear attention, so steered decoding"),
        capture(model, "resid_post.2", tokens=Tokens(phase="generation"), stop=False),
    ):
        runner.prefill()


def test_masks_of_any_form_are_refused(model):
    """A state cannot leave out a token before it."""
    seen = torch.eye(4, dtype=torch.bool)[None]
    with pytest.raises(NotApplicable, match="linear attention"):
        additive_masks(model, seen, torch.arange(4)[None], torch.arange(4)[None])


def test_states_count_as_memory_of_a_row():
    """Those above the steering layer are held twice."""
    hf = tiny_model(tiny_config("qwen3_next"))
    model = Model(hf, tokenizer())
    runner = Runner(model, [[5, 6, 7]] * 3, 4, steer=0)
    runner.prefill()
    runner.step(torch.tensor([8, 9, 10]))
    states = runner.cache.states
    held = sum(tensor.nbytes for part in (states.now, states.before) for tensor in part.values()) / 3
    plain, steered, longer = row_bytes(model, 0), row_bytes(model, 0, steer=0), row_bytes(model, 400, steer=0)
    assert {layer for _, layer, _ in states.now} == {0, 2}
    assert {layer for _, layer, _ in states.before} == {2}
    assert steered - plain == held / 3
    assert steered - 6 * 4 * hf.config.vocab_size == held * 4 / 3  # one more, while it is replaced
    columns = sum(store[:, :, :1].nbytes for store in runner.cache.stores.values()) / 3
    assert longer - steered == int(1.25 * 400 * columns)


def test_the_layers_above_carry_gradients_through_states(any_model):
    """Into every position that the last one reads, by the chunked and by the checkpointed way alike."""
    upper, ids = UpperLayers(any_model, STEER), torch.tensor([PROMPTS[3]])
    with torch.no_grad(), capture(any_model, f"resid_post.{STEER}", stop=False) as acts:
        wanted = any_model.hf(ids).logits
    hidden, found = acts[f"resid_post.{STEER}"], []
    how = {"attention_mask": None, "position_ids": torch.arange(len(PROMPTS[3]))[None]}
    close(upper(hidden, **how), wanted)
    for light in (False, True):
        shift = torch.zeros_like(hidden, requires_grad=True)
        upper.states(hidden + shift, light=light, **how)[0, -1].square().sum().backward()
        found.append(shift.grad)
    assert (found[0][0, -4:].abs().amax(-1) > 0).all()  # a window hides earlier ones in lfm3
    close(found[0], found[1])


def test_the_text_part_of_a_checkpoint_with_images_is_loaded(tmp_path, letters):
    """Qwen 3.5 is published as a model that sees images."""
    config = tiny_config(
        "qwen3_5", vision_config={"depth": 1, "hidden_size": 16, "num_heads": 2, "out_hidden_size": 32}
    )
    config.text_config.vocab_size = len(letters)
    with torch.random.fork_rng(devices=[]):
        whole = AutoModelForImageTextToText.from_config(config).eval()
    whole.save_pretrained(tmp_path)
    letters.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    ids = torch.tensor([PROMPTS[3]])
    with torch.no_grad():
        close(model.hf(ids).logits, whole(input_ids=ids).logits)
    runner = Runner(model, PROMPTS, 2)
    step = runner.prefill()
    for row, prompt in enumerate(PROMPTS):
        close(step.logits[row], shifted(model, prompt)[-1])
