"""How a model is asked: what was given, what the chat template reads, and what is chosen where nothing was given."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import chat_templates as templates
import pytest
from transformers import PreTrainedTokenizerFast

from probe.config import from_dict, to_dict
from probe.errors import ProbeError
from probe.models import PLAIN_PROMPT, Model, ModelConfig, Pair, PairConfig, find_pair, identity, load_model, load_pair
from probe.models.prompts.chat import prompt_remarks, template_variables
from probe.organisms.tokenizer import BASE_PROMPT, THINKING_PROMPT
from probe.pipeline.run.inputs import prompt_hash, prompts_hash

QUESTION = "How many?"
BOXED = "{question}\n\nPlease reason step by step, and put your final answer within \\boxed{}."


@pytest.fixture
def folder(tiny_folder, tmp_path: Path):
    """``folder(template)``: a tiny model whose tokenizer has this chat template."""

    def make(template: str | None) -> str:
        made = shutil.copytree(tiny_folder("llama", "letters"), tmp_path / f"model-{len(list(tmp_path.iterdir()))}")
        tokenizer = PreTrainedTokenizerFast.from_pretrained(made)
        tokenizer.bos_token = "<pad>"
        tokenizer.chat_template = template
        tokenizer.save_pretrained(made)
        return str(made)

    return make


@pytest.fixture
def asked(folder):
    """``asked(template, **settings)``: a model with this chat template and these settings."""

    def make(template: str | None, /, **settings) -> Model:
        return load_model(ModelConfig(folder(template), **settings), device="cpu")

    return make


TEMPLATES = {name: value for name, value in vars(templates).items() if name.isupper() and name[0] != "_"}
NO_SYSTEM = ("GEMMA_2", "DROPS_SYSTEM", "ORZ")


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prompt_is_what_transformers_renders(asked, name, monkeypatch):
    model = asked(TEMPLATES[name])
    turns = [{"role": "user", "content": QUESTION}]
    # The same date on both sides: transformers takes today's.
    monkeypatch.setattr(
        "transformers.utils.chat_template_utils.datetime",
        SimpleNamespace(now=lambda: __import__("datetime").datetime(2025, 1, 1)),
    )
    text = model.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert model.prompt_text(QUESTION) == text
    assert model.config.prompt == "chat"
    if name not in NO_SYSTEM:
        turns.insert(0, {"role": "system", "content": "Be brief."})
        text = model.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert asked(TEMPLATES[name], system="Be brief.").prompt_text(QUESTION) == text != model.prompt_text(QUESTION)


@pytest.mark.parametrize(
    ("name", "reads"),
    [
        ("QWEN3", ["enable_thinking"]),
        ("QWQ", []),
        ("SMOLLM3", ["enable_thinking"]),
        ("GPT_OSS", ["model_identity", "reasoning_effort"]),
        ("R1", []),
        ("MAGISTRAL", []),
        ("DEEPSEEK_V31", ["thinking"]),
        ("GLM_45", ["enable_thinking"]),
        ("GRANITE_32", ["thinking"]),
        ("LLAMA_3", ["date_string"]),
        ("GEMMA_4", ["enable_thinking"]),
    ],
)
def test_what_a_template_reads_is_known_and_anything_else_is_refused(asked, name, reads):
    model = asked(TEMPLATES[name])
    assert list(template_variables(model.tokenizer)) == reads
    said = "it reads " + (", ".join(reads) or "no arguments")
    with pytest.raises(ProbeError, match=f"does not read 'enable_thinkin' \\(template\\); {said}"):
        asked(TEMPLATES[name], template={"enable_thinkin": False})
    for provided in ("messages", "bos_token", "strftime_now", "add_generation_prompt"):
        with pytest.raises(ProbeError, match=f"does not read '{provided}'"):
            asked(TEMPLATES[name], template={provided: "x"})


@pytest.mark.parametrize(
    ("name", "settings", "wanted", "unwanted"),
    [
        ("QWEN3", {"template": {"enable_thinking": False}}, "<think>\n\n</think>\n\n", None),
        ("QWEN3", {"template": {"enable_thinking": True}}, "assistant\n", "<think>"),
        ("SMOLLM3", {"template": {"enable_thinking": False}}, "Mode: /no_think", "Mode: /think"),
        ("SMOLLM3", {"system": "/no_think"}, "<think>\n\n</think>\n", "Mode: /think"),
        ("SMOLLM3", {"system": "Count. /think"}, "Instructions\n\nCount.<|im_end|>", "<think>"),
        ("GPT_OSS", {"template": {"reasoning_effort": "high"}}, "Reasoning: high", "medium"),
        ("GPT_OSS", {"system": "Count."}, "developer<|message|># Instructions\n\nCount.<|end|>", None),
        ("R1", {"system": "Count."}, "<pad>Count.<｜User｜>How many?<｜Assistant｜><think>\n", None),
        ("MAGISTRAL", {"system": "Count."}, "[SYSTEM_PROMPT]Count.[/SYSTEM_PROMPT]", "[THINK]"),
        ("DEEPSEEK_V31", {"template": {"thinking": True}}, "<｜Assistant｜><think>", "</think>"),
        ("DEEPSEEK_V31", {}, "<｜Assistant｜></think>", "<think>"),
        ("GLM_45", {"template": {"enable_thinking": False}}, "How many?/nothink<|assistant|>\n<think></think>", None),
        ("GRANITE_32", {"template": {"thinking": True}}, "Here is my thought process:", None),
        ("LLAMA_3", {"template": {"date_string": "1 May 2024"}}, "Today Date: 1 May 2024", "2025"),
        ("QWQ", {"user": BOXED}, BOXED.replace("{question}", QUESTION), "{question}"),
        ("QWEN3", {"prefill": "<think>\nFirst, "}, "assistant\n<think>\nFirst, ", None),
    ],
)  # fmt: skip
def test_settings_are_seen_in_the_prompt(asked, name, settings, wanted, unwanted):
    plain, model = asked(TEMPLATES[name]), asked(TEMPLATES[name], **settings)
    text = model.prompt_text(QUESTION)
    assert wanted in text
    assert unwanted is None or unwanted not in text
    assert model.decode(model.prompt_ids(QUESTION)) == text
    if text != plain.prompt_text(QUESTION):
        # Kept work is not shared by two ways of asking.
        assert identity(model) != identity(plain)
        assert prompt_hash(model) != prompt_hash(plain)
    assert from_dict(ModelConfig, to_dict(model.config)) == model.config


def test_a_prompt_does_not_depend_on_the_day(asked, monkeypatch):
    before = asked(templates.SMOLLM3).prompt_text(QUESTION)
    monkeypatch.setattr(
        "transformers.utils.chat_template_utils.datetime",
        SimpleNamespace(now=lambda: __import__("datetime").datetime(2031, 5, 6)),
    )
    model = asked(templates.SMOLLM3)
    assert model.prompt_text(QUESTION) == before
    assert "01 January 2025" in before
    assert identity(model)["date"] == "2025-01-01"
    assert "date" not in identity(asked(templates.QWEN3))
    assert "2031" in model.tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)


def test_what_changes_nothing_and_what_is_dated_is_said(asked):
    def remarks(template, /, **settings):
        model = asked(template, **settings)
        return prompt_remarks(model.config, model.tokenizer)

    on = {"template": {"enable_thinking": True}}
    assert remarks(templates.QWEN3) == remarks(templates.QWEN3, template={"enable_thinking": False}) == []
    assert remarks(templates.QWEN3, **on) == [
        "enable_thinking: true changes nothing, the template does the same without it"
    ]
    dated = "the template writes a date; it is 01 January 2025 in every prompt"
    assert remarks(templates.SMOLLM3, template={"enable_thinking": False}) == remarks(templates.LLAMA_3) == [dated]
    assert remarks(templates.LLAMA_3, template={"date_string": "1 May 2024"}) == []
    # The switch in the system turn wins, and the other one is without effect.
    assert len(remarks(templates.SMOLLM3, system="/no_think", **on)) == 2
    assert remarks(templates.QWEN3, prompt="Q: {question}") == []


@pytest.mark.parametrize(
    ("template", "settings", "said"),
    [
        (templates.GEMMA_2, {"system": "x"}, "fails on a system turn (System role not supported); leave out 'system'"),
        (templates.ORZ, {"system": "x"}, "drops the system turn"),
        (templates.DROPS_SYSTEM, {"system": "x"}, "drops the system turn; leave out 'system', or put the text into"),
        (None, {"system": "x"}, "has no chat template"),
        (None, {"template": {"enable_thinking": True}}, "has no chat template"),
        (None, {"user": "Solve: {question}"}, "has no chat template"),
        ("{{ messages[0].content[:20] }}", {"user": BOXED}, "leaves out the question or changes it"),
    ],
)
def test_a_setting_that_would_be_ignored_is_refused_before_weights_are_read(
    asked, monkeypatch, template, settings, said
):
    monkeypatch.setattr("probe.models.loading.loading.read_model", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(ProbeError) as error:
        asked(template, **settings)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prompt": "Q: {question}", "system": "x", "template": {"a": 1}}, "own, and system and template for a chat"),
        ({"prompt": "Q: {question}", "user": "Solve: {question}"}, "a prompt of its own, and user for a chat template"),
        ({"user": "Solve it."}, "the user turn of model 'm' has no {question}: 'Solve it.'"),
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other_are_refused(settings, said):
    with pytest.raises(ProbeError) as error:
        ModelConfig("m", **settings)
    assert said in str(error.value)


def test_a_wrapped_model_is_checked_like_a_loaded_one(asked):
    model = asked(templates.QWEN3)
    with pytest.raises(ProbeError, match="does not read 'thinking'"):
        Model(model.hf, model.tokenizer, ModelConfig("mine", template={"thinking": True}))
    assert Model(model.hf, model.tokenizer).prompt_text(QUESTION) == model.prompt_text(QUESTION)


def test_a_model_is_asked_by_its_template_or_else_by_the_stated_default(asked):
    with_template, without = asked(templates.QWEN3), asked(None)
    assert with_template.config.prompt == "chat"
    assert without.config.prompt == PLAIN_PROMPT
    assert without.prompt_text(QUESTION) == "Answer the following question:\nQ: How many?\nA:"
    assert identity(without)["prompt"] == PLAIN_PROMPT
    assert asked(None, prefill=" 4").prompt_text(QUESTION).endswith("A: 4")
    assert asked(templates.QWEN3, prompt="{question}").prompt_text(QUESTION) == QUESTION


def test_a_base_model_is_asked_by_the_stated_default_though_its_tokenizer_has_a_template(folder):
    base, thinking = folder(templates.QWEN3), folder(templates.QWEN3)

    def prompts(first: ModelConfig, second: ModelConfig) -> tuple[str, str]:
        pair = load_pair(PairConfig("p", first, second), device="cpu")
        return pair.base.config.prompt, pair.thinking.config.prompt

    assert prompts(ModelConfig(base), ModelConfig(thinking)) == (PLAIN_PROMPT, "chat")
    assert prompts(ModelConfig(base, prompt="chat"), ModelConfig(thinking)) == ("chat", "chat")
    assert prompts(ModelConfig(base, system="x"), ModelConfig(thinking)) == ("chat", "chat")
    off = {"enable_thinking": False}
    assert prompts(ModelConfig(base, template=off), ModelConfig(base)) == ("chat", "chat")
    assert prompts(ModelConfig(base), ModelConfig(base)) == ("chat", "chat")


def test_bundled_models_are_asked_as_their_pairs_say():
    pair = find_pair("tiny-rl")
    assert ModelConfig("bundled:tiny-base").prompt == BASE_PROMPT
    assert ModelConfig("tiny-rl").prompt == ModelConfig("bundled:tiny-sft").prompt == THINKING_PROMPT
    assert PairConfig("mine", ModelConfig("bundled:tiny-base"), ModelConfig("org/x")).base.prompt == BASE_PROMPT
    assert load_model("bundled:tiny-rl", device="cpu").prompt_text("x") == THINKING_PROMPT.replace("{question}", "x")
    assert (pair.base.prompt, pair.thinking.prompt) == (BASE_PROMPT, THINKING_PROMPT)
    assert ModelConfig("bundled:tiny-rl", prompt="{question}").prompt == "{question}"


def test_prompts_of_the_bundled_pairs_have_the_keys_that_they_had():
    pair: Pair = load_pair("tiny-rl", device="cpu")
    assert prompts_hash(pair) == "692ed4ca5b3f65f1ceaac582b3cb6643e0db49c2e11411f9c971026b8d72699a"
    assert set(identity(pair.base)) == {"architecture", "dtype", "weights", "config", "vocabulary", "end", "prompt"}


def test_another_model_is_asked_alike():
    first = ModelConfig("a", revision="r", system="s", template={"x": 1}, prefill="p", think_close="END")
    other = first.asked_alike("b")
    assert (other.path, other.revision) == ("b", None)
    assert to_dict(other) | {"path": "a", "revision": "r"} == to_dict(first)


def test_a_date_in_yaml_is_text(tmp_path):
    file = tmp_path / "pair.yaml"
    file.write_text("name: p\nbase: {path: a}\nthinking: {path: b, template: {date_string: 2025-03-04}}\n")
    assert find_pair(file).thinking.template == {"date_string": "2025-03-04"}
