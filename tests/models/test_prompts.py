"""Prompts: one start token, no end token, and a chat template that asks the question."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from probe.activations import documents_of
from probe.circuits import read_pairs
from probe.errors import ProbeError
from probe.models import Model, ModelConfig, load_model, load_pair
from probe.models.config import PairConfig
from probe.pipeline.adapter.inputs import texts_of
from probe.traces import sample_texts

START, END, OPEN, CLOSE = "<pad>", "<eos>", "<think>", "</think>"
_ID = {START: 0, END: 1, OPEN: 2, CLOSE: 3}


def template(single: str) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(single=single, special_tokens=list(_ID.items()))


@pytest.fixture
def made(tiny_folder, tmp_path: Path):
    """``made(processor, prompt, chat_template)``: a model whose tokenizer adds tokens to every text."""

    def make(processor=None, prompt: str = "{question}", chat_template: str | None = None) -> Model:
        folder = shutil.copytree(tiny_folder("llama", "letters"), tmp_path / "model", dirs_exist_ok=True)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        tokenizer.bos_token = START
        tokenizer.chat_template = chat_template
        if processor is not None:
            tokenizer.backend_tokenizer.post_processor = processor
        tokenizer.save_pretrained(folder)
        return load_model(ModelConfig(str(folder), prompt=prompt), device="cpu")

    return make


@pytest.mark.parametrize(
    ("processor", "prompt", "start"),
    [
        (processors.RobertaProcessing((END, 1), (START, 0)), "{question}", [START]),
        (template(f"{START} {OPEN} $A {END} {END}"), "{question}", [START, OPEN]),
        (template(f"{START} {OPEN} $A {END}"), f"{START}{OPEN}{{question}}", [START, OPEN]),
        (template(f"$A {CLOSE}"), "{question}", []),
        (
            processors.Sequence([processors.ByteLevel(trim_offsets=False), template(f"{START} $A {END}")]),
            "{question}",
            [START],
        ),
    ],
    ids=["roberta", "two", "own template", "end only", "sequence"],
)
def test_a_text_has_its_start_tokens_once_and_no_end_token(made, processor, prompt, start, tmp_path):
    model = made(processor, prompt)
    wanted = [*(_ID[piece] for piece in start), *model.tokenizer("hi", add_special_tokens=False).input_ids]
    assert model.prompt_ids("hi") == wanted
    text = model.decode(wanted[len(start) :])
    assert model.encode(text) == wanted
    (document,) = documents_of(model, ["hi"])
    assert (list(document.ids), document.spans) == (wanted, ((len(start), len(wanted)),))
    file = tmp_path / "texts.jsonl"
    file.write_text(json.dumps({"text": "hi"}) + "\n" + json.dumps({"prompt": "hi", "text": "you"}) + "\n")
    alone, after = texts_of(model, file)
    assert list(alone.ids) == wanted
    assert model.decode(after.ids) == "".join(start) + "hiyou"
    file.write_text(json.dumps({"clean": "hi", "corrupt": "ho", "right": "a", "wrong": "b"}) + "\n")
    assert read_pairs(model, file).clean[0].tolist() == [wanted]


def test_a_question_that_begins_with_the_start_token_has_it_once(made):
    model = made(template(f"{START} $A"))
    assert model.decode(model.prompt_ids(f"{START}hi")) == f"{START}hi"


def test_a_chat_template_has_no_tokens_added(made):
    model = made(template(f"{START} $A {END}"), "chat", "{{ bos_token }}[{{ messages[0]['content'] }}]")
    assert model.decode(model.prompt_ids("hi")) == f"{START}[hi]"


@pytest.mark.parametrize(
    "chat",
    ["[{{ messages[0]['content'] | trim }}]", "{{ messages[0] | tojson }}"],
    ids=["trimmed", "json"],
)
def test_a_chat_template_may_trim_and_escape_the_question(made, chat):
    model = made(None, "chat", chat)
    assert "2" in model.prompt_text(' Say "2"\nor 3. ')


@pytest.mark.parametrize(
    ("chat", "said"),
    [
        ("{{ messages[0]['content'][:5] }}", "leaves out the question"),
        ("{% for part in messages[0]['content'] %}{{ part.text }}{% endfor %}", "leaves out the question"),
        ("{{ messages[0]['content'] | upper }}", "leaves out the question"),
        ("{{ messages[1]['content'] + 'x' }}", "fails on a single user turn"),
        ("{{ raise_exception('a system turn\ncomes first') }}", r"turn \(a system turn comes first\)"),
        ("{{ 1 + 'a' }}", "unsupported operand"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{% for", "end of template"),
    ],
)
def test_a_chat_template_that_asks_nothing_is_refused_before_weights_are_read(made, monkeypatch, chat, said):
    monkeypatch.setattr("probe.models.loading.loading.read_model", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(ProbeError, match=said) as error:
        made(None, "chat", chat)
    assert "\n" not in str(error.value)


def test_a_chat_template_that_drops_one_question_is_refused_at_it(made):
    model = made(None, "chat", "{% if 'ten' not in messages[0]['content'] %}{{ messages[0]['content'] }}{% endif %}")
    assert model.prompt_ids("two?")
    with pytest.raises(ProbeError, match="'ten\\?' is not in ''"):
        model.prompt_ids("ten?")


def test_a_prompt_without_a_token_is_refused(made):
    model = made()
    with pytest.raises(ProbeError, match="for the question '' has no token"):
        model.prompt_ids("")
    with pytest.raises(ProbeError, match="prompt 1 for model has no token"):
        sample_texts(model, [[5], []], 1, 3)
    assert made(template(f"{START} $A {END}")).prompt_ids("") == [0]


def test_both_templates_of_a_pair_are_checked(made, tiny_folder):
    bad = made(None, "{question}", "no question").config.path
    base = ModelConfig(str(tiny_folder("llama", "letters")))
    with pytest.raises(ProbeError, match="leaves out the question"):
        load_pair(PairConfig("p", base, ModelConfig(bad, prompt="chat")), device="cpu")


def test_a_template_may_need_the_arguments_and_the_system_turn_that_are_given():
    from transformers import AutoTokenizer

    from probe.models import bundled_folder
    from probe.models.prompts.chat import chosen_prompt, prompt_text

    tokenizer = AutoTokenizer.from_pretrained(bundled_folder("tiny-base"))
    tokenizer.chat_template = (
        "{% if messages[0].role != 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
        "{{ effort.upper() }}{% for each in messages %} {{ each.content }}{% endfor %}"
    )
    config = ModelConfig("org/name", system="Be brief.", template={"effort": "high"})
    chosen = chosen_prompt(config, tokenizer, "name")
    assert prompt_text(chosen, tokenizer, "1 + 1?", "name") == "HIGH Be brief. 1 + 1?"
    for less in (ModelConfig("org/name"), replace(config, system=None), replace(config, template={})):
        with pytest.raises(ProbeError, match="fails on a single user turn"):
            chosen_prompt(less, tokenizer, "name")
