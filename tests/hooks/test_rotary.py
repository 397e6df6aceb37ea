"""What depends on the length of a text (rotary frequencies, temperatures): right below a length, refused above it."""

import pytest
import torch

from probe.activations.passes import read
from probe.adapters.training.packing import Example, pack
from probe.errors import NotApplicable
from probe.hooks import capture, force, forced_pass
from probe.hooks.decoding.runner import Runner
from probe.models import Model
from probe.traces.generate import decode_greedy
from tests.supported_models import tokenizer, try_model
from tests.tiny_models import tiny_config, tiny_model

SWITCH = 32
_LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "rope_theta": 10000.0,
    "original_max_position_embeddings": SWITCH,
}
_DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
_PLAIN = {"rope_type": "default", "rope_theta": 10000.0}

MODELS = {
    "phi3, longrope": ("phi3", {"rope_parameters": _LONGROPE, "original_max_position_embeddings": SWITCH}),
    "llama, longrope": ("llama", {"rope_parameters": _LONGROPE}),
    "qwen3, dynamic": ("qwen3", {"rope_parameters": _DYNAMIC, "max_position_embeddings": SWITCH}),
    "gemma3, dynamic in one kind of block": (
        "gemma3_text",
        {
            "rope_parameters": {"full_attention": _DYNAMIC, "sliding_attention": _PLAIN},
            "max_position_embeddings": SWITCH,
        },
    ),
    "llama4, temperature by columns": ("llama4_text", {"floor_scale": SWITCH, "attn_scale": 5.0}),
}


@pytest.fixture(scope="module", params=list(MODELS))
def model(request) -> Model:
    kind, changes = MODELS[request.param]
    return Model(tiny_model(tiny_config(kind, **changes)), tokenizer())


def text(length: int) -> list[int]:
    return torch.randint(3, 64, (length,), generator=torch.Generator().manual_seed(length)).tolist()


def test_shorter_texts_decode_as_generate_does(model):
    assert model.longest_text in (SWITCH, SWITCH - 1)
    assert try_model("", model.hf).result == "supported"  # up to 20 + 10 tokens


def test_longer_texts_are_refused_in_every_way_to_run_them(model):
    long, short = text(40), text(5)
    runner = Runner(model, [short, short], 10)
    runner.prefill()
    runner.keep(torch.tensor([0]), hold=True)
    packed = pack(model, [Example(tuple(long)), Example(tuple(short))], 64)
    ways = {
        "decoding": lambda: decode_greedy(model, [short, long], 4),
        "decoding that may reach it": lambda: decode_greedy(model, [short, text(20)], 20),
        "a row added": lambda: runner.admit([long]),
        "a forced pass": lambda: forced_pass(model, force(model, [short, short], [long, short])),
        "harvesting": lambda: read(model, [long, short], ["model.layers.1"]),
        "packed training": lambda: packed.logits(model),
        "a captured pass": lambda: captured(model, long),
    }
    for way, run in ways.items():
        with pytest.raises(NotApplicable, match=f"changes .* beyond {model.longest_text} tokens") as caught:
            run()
        assert "\n" not in str(caught.value), way


def captured(model: Model, ids: list[int]) -> None:
    with capture(model, "model.layers.1"):
        model.hf(torch.tensor([ids]))


def test_packed_texts_count_each_for_itself(model):
    packed = pack(model, [Example(tuple(text(20))), Example(tuple(text(18)))], 64)
    assert len(packed.ids) == 1
    assert packed.logits(model).isfinite().all()


@pytest.mark.parametrize("kind", ["yarn", "linear", "llama3"])
def test_scaled_frequencies_that_do_not_depend_on_the_length_have_no_limit(kind):
    more = {"low_freq_factor": 1.0, "high_freq_factor": 4.0} if kind == "llama3" else {}
    rope = {"rope_type": kind, "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 16, **more}
    hf = tiny_model(tiny_config("llama", rope_parameters=rope, max_position_embeddings=64))
    assert Model(hf, tokenizer()).longest_text is None
    assert try_model("llama", hf).result == "supported"
