"""Each planted fault of a model is found by the check that is made for it, and the same model without it passes."""

import copy
import json
import shutil
from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers import Gemma3TextConfig, LlamaConfig, MistralConfig, MixtralConfig

from probe.models import Model, ModelConfig, bundled_folder, load_model
from probe.pipeline.check import decoding, passes, settings, sites, tokenizer, weights
from probe.pipeline.check.bench import Bench
from probe.pipeline.check.checks import Check
from probe.pipeline.check.language import predicts
from tests.tiny_models import tiny_model


@pytest.fixture
def base() -> Model:
    """A trained model, which tests may damage."""
    return load_model("bundled:tiny-base", device="cpu")


def failed(check: Callable[[Bench], Check], model: Model) -> str:
    """Run a check that must fail, and return what it says."""
    found = check(Bench(model))
    assert found.verdict == "failed", found
    return found.why


def passes_on(check: Callable[[Bench], Check], model: Model) -> None:
    found = check(Bench(model))
    assert found.verdict == "passed", found


def with_config(tmp_path, **changes) -> Model:
    """tiny-base with other values in its config.json."""
    folder = tmp_path / "model"
    shutil.copytree(bundled_folder("tiny-base"), folder)
    config = json.loads((folder / "config.json").read_text())
    config |= changes
    (folder / "config.json").write_text(json.dumps(config))
    return load_model(str(folder), device="cpu")


def tiny(letters, kind=LlamaConfig, **shape) -> Model:
    """A random model that reads bytes."""
    small = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
    made = kind(
        vocab_size=len(letters),
        intermediate_size=64,
        head_dim=8,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        initializer_range=0.2,
        tie_word_embeddings=False,
        max_position_embeddings=512,
        **small,
        **shape,
    )
    return Model(tiny_model(made), letters, ModelConfig("tiny", prompt="{question}"))


def masked(model: Model, seen: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    """Let a model use another mask in whole passes than the causal one.

    Args:
        seen: from the columns of queries and keys, which keys each query sees.
    """

    def exchange(_: nn.Module, args: tuple, kwargs: dict) -> tuple:
        state = kwargs.get("inputs_embeds")
        width = (kwargs["input_ids"] if state is None else state).shape[1]
        if kwargs.get("attention_mask") is None and width > 1:
            column = torch.arange(width)
            allowed = seen(column[:, None], column[None]) | (column[:, None] == column[None]) & (column[None] == 0)
            kwargs["attention_mask"] = torch.where(allowed, 0.0, torch.finfo(model.dtype).min)[None, None]
        return args, kwargs

    model.hf.base_model.register_forward_pre_hook(exchange, with_kwargs=True)


@pytest.mark.parametrize("theta", [1e3, 1e5, 1e6])
def test_a_wrong_rotary_base_in_the_config_is_found_and_the_right_one_is_named(tmp_path, theta):
    model = with_config(tmp_path, rope_parameters={"rope_theta": theta, "rope_type": "default"})
    said = failed(settings.rotary_base, model)
    named = float(said.split("rope_theta ")[1].split(",")[0])
    assert 10000 / 4 <= named <= 10000 * 4
    passes_on(passes.causal, model)  # the mask is not what is wrong


def test_the_rotary_base_of_one_kind_of_block_is_changed_alone_and_restored(letters):
    ropes = {
        "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
        "full_attention": {"rope_theta": 1e6, "rope_type": "default"},
    }
    kinds = ["sliding_attention", "full_attention"] * 2
    model = tiny(letters, Gemma3TextConfig, layer_types=kinds, rope_parameters=ropes, sliding_window=16)
    assert settings._ropes(model.hf.config) == {"sliding_attention": 1e4, "full_attention": 1e6}

    def frequencies() -> dict[str, torch.Tensor]:
        [(_, _, rotary)] = settings._rotary(model.hf)
        return {name: value.clone() for name, value in rotary.named_buffers() if name.endswith("_inv_freq")}

    before = frequencies()
    with settings._rotated(model.hf, "full_attention", 1e4):
        inside = frequencies()
    assert torch.equal(inside["full_attention_inv_freq"], before["sliding_attention_inv_freq"])
    assert torch.equal(inside["sliding_attention_inv_freq"], before["sliding_attention_inv_freq"])
    assert not torch.equal(before["full_attention_inv_freq"], before["sliding_attention_inv_freq"])
    assert all(torch.equal(frequencies()[name], value) for name, value in before.items())


def test_a_wrong_epsilon_of_the_norms_is_found(tmp_path):
    model = with_config(tmp_path, rms_norm_eps=0.02)
    assert "rms_norm_eps" in failed(settings.norm_epsilon, model)
    passes_on(settings.rotary_base, model)


def test_a_wrong_activation_is_found(tmp_path):
    assert "the activation silu" in failed(settings.activation, with_config(tmp_path, hidden_act="relu2"))


def test_a_wrong_scale_of_the_attention_is_found(base):
    passes_on(settings.attention_scale, base)
    for layer in base.layers:
        layer.self_attn.scaling *= 0.5
    assert "1.4 times as large" in failed(settings.attention_scale, base)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_exchanged_blocks_are_found(base, at):
    passes_on(settings.order, base)
    one, two = base.layers[at], base.layers[at + 1]
    base.layers[at], base.layers[at + 1] = two, one
    assert f"blocks {at} and {at + 1} exchanged" in failed(settings.order, base)


def test_settings_are_restored_bit_for_bit(base):
    bench = Bench(base)
    before = bench.plain(bench.rows[1])
    for check in (settings.rotary_base, settings.norm_epsilon, settings.attention_scale, settings.activation):
        check(bench)
    settings.order(bench)
    assert torch.equal(bench.plain(bench.rows[1]), before)


def test_a_mask_that_shows_the_next_token_is_found(base):
    passes_on(passes.causal, base)
    masked(base, lambda query, key: key <= query + 1)
    assert "an earlier token sees it in 4 layers" in failed(passes.causal, base)


def test_a_mask_that_hides_the_token_itself_is_found(base):
    masked(base, lambda query, key: key < query)
    assert "it does not see itself" in failed(passes.causal, base)


def test_a_mask_that_hides_earlier_tokens_is_found(base):
    masked(base, lambda query, key: key == query)
    assert "the next token does not see it" in failed(passes.causal, base)


def test_a_sliding_window_that_is_not_applied_is_found(letters):
    model = tiny(letters, MistralConfig, sliding_window=16)
    passes_on(passes.causal, model)
    masked(model, lambda query, key: key <= query)
    assert "a token beyond the sliding window sees it" in failed(passes.causal, model)


def test_a_future_token_is_found_without_sites(letters):
    model = tiny(letters, MixtralConfig, num_local_experts=4)
    model.hf.config.model_type = "unknown"
    passes_on(passes.causal, model)
    masked(model, lambda query, key: key <= query + 1)
    assert "tokens see later ones" in failed(passes.causal, model)


def test_a_model_that_ignores_the_padding_mask_is_found(base):
    passes_on(passes.padded, base)

    def ignore(_: nn.Module, args: tuple, kwargs: dict) -> tuple:
        if (mask := kwargs.get("attention_mask")) is not None:
            kwargs["attention_mask"] = torch.ones_like(mask)
        return args, kwargs

    base.hf.base_model.register_forward_pre_hook(ignore, with_kwargs=True)
    assert "does not use the attention mask" in failed(passes.padded, base)


def test_a_cache_whose_positions_are_off_by_one_is_found_in_logits_and_in_decoded_tokens(base):
    def shift(_: nn.Module, args: tuple, kwargs: dict) -> tuple:
        if kwargs.get("past_key_values") is not None and kwargs["position_ids"].shape[1] == 1:
            kwargs["position_ids"] = kwargs["position_ids"] + 3
        return args, kwargs

    passes_on(passes.cached, base)
    passes_on(passes.batched, base)
    base.hf.base_model.register_forward_pre_hook(shift, with_kwargs=True)
    assert "key/value cache" in failed(passes.cached, base)
    passes_on(passes.batched, base)


def test_decoding_that_differs_from_generate_is_found(base, monkeypatch):
    passes_on(decoding.generate, base)
    own = base.hf.generate
    monkeypatch.setattr(
        base.hf, "generate", lambda ids, **how: torch.cat([ids, own(ids, **how)[:, ids.shape[1] :].flip(1)], 1)
    )
    assert "3 of 3 greedy texts differ" in failed(decoding.generate, base)


def test_attention_kinds_that_differ_are_found(base):
    passes_on(passes.attention_kinds, base)

    def as_kind(_: nn.Module, __: tuple) -> None:
        for layer in base.layers:
            layer.self_attn.scaling = 0.1 if base.hf.config._attn_implementation == "eager" else 32**-0.5

    base.hf.base_model.register_forward_pre_hook(as_kind)
    assert "sdpa and eager attention give different logits" in failed(passes.attention_kinds, base)
    assert base.hf.config._attn_implementation == "sdpa"


def test_infinite_logits_are_found(base):
    base.hf.lm_head.weight = nn.Parameter(base.hf.lm_head.weight.detach() * float("inf"), requires_grad=False)
    assert "infinite or NaN" in failed(passes.finite, base)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda model: model.layers[2].mlp.down_proj.weight.zero_(), "layers.2.mlp.down_proj.weight is all zeros"),
        (
            lambda model: model.layers[1].mlp.up_proj.weight[0, :1].fill_(torch.nan),
            "layers.1.mlp.up_proj.weight is not finite",
        ),
        (
            lambda model: model.layers[3].mlp.up_proj.weight.copy_(model.layers[1].mlp.up_proj.weight),
            "layers.3.mlp.up_proj.weight is a copy of another",
        ),
    ],
)
def test_damaged_weights_are_found_and_named(base, damage, said):
    passes_on(weights.values, base)
    damage(base)
    assert said in failed(weights.values, base)


def test_a_broken_tie_of_the_unembedding_is_found(base):
    passes_on(weights.tied, base)
    base.hf.lm_head.weight = nn.Parameter(torch.randn_like(base.hf.lm_head.weight), requires_grad=False)
    assert "tie_word_embeddings" in failed(weights.tied, base)
    assert "random or damaged" in failed(predicts, base)
    assert "the embedding as the unembedding" in failed(settings.unembedding, base)


def test_a_block_that_scales_what_it_adds_is_found(base):
    passes_on(sites.residual, base)
    block = base.layers[1]
    own = block.forward

    def scaled(hidden, *args, **kwargs):
        return hidden + 0.5 * (own(hidden, *args, **kwargs) - hidden)

    block.forward = scaled
    assert "resid_post.1" in failed(sites.residual, base)


def test_a_head_that_scales_logits_outside_the_unembedding_is_found(base):
    passes_on(sites.unembedded, base)
    own = base.hf.forward

    def capped(*args, **kwargs):
        out = own(*args, **kwargs)
        out.logits = 5 * torch.tanh(out.logits / 5)
        return out

    base.hf.forward = capped
    assert "logit lens is wrong" in failed(sites.unembedded, base)


def test_hidden_states_that_are_not_at_the_site_are_found(base):
    passes_on(sites.hidden_states, base)
    own = base.hf.forward

    def shifted(*args, **kwargs):
        out = own(*args, **kwargs)
        if out.hidden_states is not None:
            out.hidden_states = (
                *out.hidden_states[:1],
                out.hidden_states[0],
                *out.hidden_states[1:-2],
                out.hidden_states[-1],
            )
        return out

    base.hf.forward = shifted
    assert "table of sites" in failed(sites.hidden_states, base)


def test_a_model_that_computes_something_else_each_time_is_found_by_its_edits(base):
    passes_on(sites.edited, base)
    base.layers[0].mlp.register_forward_hook(lambda _, __, out: out + 1e-3 * torch.randn_like(out))
    assert "adding zero changes logits" in failed(sites.edited, base)


def offsets_by(model: Model, change: Callable[[int, int], tuple[int, int]]) -> None:
    """Let a tokenizer give other offsets."""
    own = type(model.tokenizer)

    class Wrong(own):
        def __call__(self, *args, **kwargs):
            read = super().__call__(*args, **kwargs)
            if "offset_mapping" in read:
                read["offset_mapping"] = [change(*pair) for pair in read["offset_mapping"]]
            return read

    model.tokenizer.__class__ = Wrong


@pytest.mark.parametrize(
    "change",
    [
        lambda start, end: (start + 1, end + 1),
        lambda start, _: (start, start),  # huggingface/tokenizers#1553
        lambda _, __: (0, 0),
        lambda start, end: (2 * start, 2 * end),  # bytes in place of characters, as it were
    ],
)
def test_wrong_offsets_of_a_tokenizer_are_found(letters, change):
    model = tiny(copy.deepcopy(letters))
    passes_on(tokenizer.offsets, model)
    offsets_by(model, change)
    assert "offsets are wrong" in failed(tokenizer.offsets, model)


def test_a_tokenizer_of_another_model_is_found(letters, base):
    base.tokenizer = letters
    assert "have no row" in failed(tokenizer.rows, base)


def test_a_tokenizer_that_changes_text_is_found(letters):
    from tokenizers import normalizers

    other = copy.deepcopy(letters)
    other.backend_tokenizer.normalizer = normalizers.Lowercase()
    passes_on(tokenizer.round_trip, tiny(letters))
    assert "are changed" in failed(tokenizer.round_trip, tiny(other))


def test_a_model_that_never_ends_is_found(letters):
    model = tiny(copy.deepcopy(letters))
    passes_on(tokenizer.special, model)
    model.eos_ids = ()
    assert "eos_token_id" in failed(tokenizer.special, model)


CHATML = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</think>{% endfor %}"


def test_a_template_whose_end_of_turn_does_not_end_decoding_is_found(letters):
    own = copy.deepcopy(letters)
    own.chat_template = CHATML
    model = tiny(own)
    model.config = ModelConfig("tiny", prompt="chat")
    assert "does not end decoding" in failed(tokenizer.template, model)


@pytest.mark.parametrize(
    "template", ["{{ messages[0]['content'] }}", "{{ raise_exception('no') }}", "{% for m in messages %}"]
)
def test_a_template_that_fails_or_leaves_out_a_turn_is_found(letters, template):
    own = copy.deepcopy(letters)
    own.chat_template = template
    assert "--prompt" in failed(tokenizer.template, tiny(own))


def test_thinking_tags_that_the_tokenizer_does_not_know_are_found(letters):
    passes_on(tokenizer.thinking, tiny(letters))
    model = tiny(letters)
    model = Model(model.hf, letters, ModelConfig("tiny", think_close="</reasoning>"))
    assert "think_close" in failed(tokenizer.thinking, model)
