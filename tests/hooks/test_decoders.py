"""Every decoder of transformers either decodes as ``generate`` does or is refused in one line."""

import pytest

from probe.errors import NotApplicable, ProbeError
from probe.models import Model, load_model
from tests.supported_models import TABLE, page, tokenizer, verdict, verdicts
from tests.tiny_models import WINDOW, tiny_config, tiny_model


@pytest.mark.parametrize(
    "kind",
    [
        *("gemma3", "gpt_oss", "cohere2", "mixtral", "opt", "mpt", "gemma4_text", "glm4_moe"),
        *("qwen3_next", "qwen3_5", "qwen3_5_moe", "llama4"),
    ],
)
def test_a_decoder_of_any_family_decodes_as_generate_does(kind):
    assert verdict(kind).result == "supported"


@pytest.mark.parametrize(
    ("kind", "changes", "why"),
    [
        ("mamba", {}, "blocks of linear_attention"),
        ("mamba2", {}, "blocks of linear_attention"),
        ("zamba2", {}, "blocks of hybrid, linear_attention"),
        ("minimax_m3_vl_text", {"layer_types": ["minimax_m3_sparse"] * 4}, "blocks of minimax_m3_sparse"),
        ("bloom", {}, "ALiBi"),
        ("falcon", {"alibi": True}, "ALiBi"),
        ("rwkv", {}, "keep a state"),
        ("bert", {"is_decoder": False}, "this is an encoder"),
        ("roberta", {}, "count positions from the padding token"),
        ("trocr", {}, "count positions from the first column"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "see later tokens"),
        ("big_bird", {"attention_type": "block_sparse"}, "block_sparse"),
        ("llama", {"sliding_window": WINDOW}, "names a sliding window that its code does not apply"),
        ("llama", {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 8}, "does not apply"),
        ("llama", {"layer_types": ["chunked_attention", "full_attention"] * 2}, "attention in chunks that its code"),
    ],
)
def test_what_a_batch_cannot_run_is_refused_by_name(kind, changes, why):
    hf = tiny_model(tiny_config(kind, **changes))
    with pytest.raises(NotApplicable, match=why) as caught:
        Model(hf, tokenizer())
    assert "\n" not in str(caught.value)


def test_a_kind_of_block_that_nobody_knows_is_not_taken_for_full_attention():
    hf = tiny_model(tiny_config("llama"))
    hf.config.layer_types = ["full_attention", "spiral_attention"] * 2
    with pytest.raises(NotApplicable, match="blocks of spiral_attention"):
        Model(hf, tokenizer())


def test_a_folder_with_such_a_model_is_refused_as_it_is_loaded(tmp_path, letters):
    for kind in ("mamba2", "rwkv"):
        tiny_model(tiny_config(kind)).save_pretrained(tmp_path / kind)
        letters.save_pretrained(tmp_path / kind)
        with pytest.raises(ProbeError, match=f"'{kind}' models are not supported"):
            load_model(tmp_path / kind)


def test_a_window_of_a_wrapped_text_model_is_that_of_its_own_config():
    hf = tiny_model(tiny_config("gemma3"))
    assert not hasattr(hf.config, "sliding_window")
    assert Model(hf, tokenizer()).mask_windows == {"full_attention": None, "sliding_attention": WINDOW}


@pytest.mark.slow
@pytest.mark.long
def test_the_table_of_supported_models_is_current():
    """If it is not: python -m tests.supported_models."""
    found = verdicts()
    assert not [each for each in found if each.result == "WRONG"]
    assert TABLE.read_text(encoding="utf-8") == page(found)
