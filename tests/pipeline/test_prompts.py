"""The first prompts: shown with what is easily overlooked, kept in the folder and in the report."""

import json

import chat_templates as templates
import pytest

from probe.errors import ProbeError
from probe.models import PLAIN_PROMPT, ModelConfig, load_model
from probe.pipeline.check import run as checking
from probe.pipeline.folder import RunFolder
from probe.pipeline.prompts import PROMPTS, begin, first_prompts, shown
from probe.reports.html.filling import fill

QUESTION = "What is 6 x 7?"


@pytest.fixture
def models(tmp_path):
    """A base model with a prompt of its own, and a thinking model with a chat template, thinking switched off."""
    tokens = ["<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    folder = templates.save_model(tmp_path / "model", tokens, templates.SMOLLM3)
    return {
        "base": load_model(ModelConfig(folder, prompt="Q: {question}\nA: "), device="cpu"),
        "thinking": load_model(ModelConfig(folder, template={"enable_thinking": False}), device="cpu"),
    }


def test_they_are_said_as_the_models_read_them(models):
    told = first_prompts(models, QUESTION)
    for role, asked in told.items():
        assert asked["text"] == models[role].prompt_text(QUESTION)
        assert asked["tokens"] == len(models[role].prompt_ids(QUESTION))
    assert told["thinking"]["settings"] == {"template": {"enable_thinking": False}}
    assert told["thinking"]["text"].endswith("<|im_start|>assistant\n<think>\n\n</think>\n")
    assert told["thinking"]["thinking"].startswith("the prompt closes the thinking with </think>")
    assert told["base"]["thinking"].startswith("thinking, if any, ends at </think> in the answer")
    assert told["thinking"]["remarks"] == ["the template writes a date; it is 01 January 2025 in every prompt"]


def test_they_are_shown_only_with_progress_and_kept_in_any_case(models, tmp_path, capsys):
    told = begin(tmp_path, models, QUESTION, progress=False)
    assert capsys.readouterr() == ("", "")
    assert json.loads((tmp_path / PROMPTS).read_text()) == told
    begin(None, models, QUESTION, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and list(tmp_path.glob("*.json")) == [tmp_path / PROMPTS]
    base, thinking = err[: err.index("thinking: ")], err[err.index("thinking: ") :]
    name = models["base"].name
    assert base.splitlines()[0].startswith(f"base: {name}, asked by its own prompt, 21 tokens; thinking, if any")
    assert base.splitlines()[1:] == ["  │Q: What is 6 x 7?", "  │A: "]
    assert "asked by its chat template" in thinking and "  │<|im_start|>assistant\n  │<think>\n  │\n" in thinking
    assert thinking.endswith("  note: the template writes a date; it is 01 January 2025 in every prompt\n")


def test_a_long_prompt_is_cut_in_the_middle_where_it_is_shown(models):
    asked = first_prompts({"base": models["base"]}, "x" * 5_000)["base"]
    text = shown("base", asked)
    assert len(asked["text"]) > 5_000 > 2_000 > len(text)
    assert "│Q: xxx" in text and text.endswith("x\n  │A: ") and "more characters in prompts.json" in text


def test_they_are_a_section_of_a_report(models):
    told = first_prompts(models, "Is 6 < 7?")
    page = fill("html/prompts.html.j2", None, prompts=told)
    assert "&lt;|im_start|&gt;user\nIs 6 &lt; 7?" in page
    assert "thinking: " in page and f"base: {told['base']['tokens']} tokens" in page and "01 January 2025" in page
    assert fill("html/prompts.html.j2", None, prompts=None).strip() == ""


def test_a_check_of_a_model_takes_it_for_a_chat_model_only_if_told_so(tmp_path, monkeypatch):
    folder = templates.save_model(tmp_path / "model", ["<|im_end|>"], templates.QWEN3)  # that ends no answer
    monkeypatch.setattr(checking, "_CHECKS", {("tokenizer", "chat template"): checking.tokenizer.template})
    told = [folder, ModelConfig(folder, prompt="chat"), ModelConfig(folder, template={"enable_thinking": False})]
    verdicts = [check.verdict for model in told for check in checking.run_checks(model, device="cpu")]
    assert verdicts == ["not applicable", "failed", "failed"]


def test_a_command_that_fails_at_once_leaves_no_folder(models, tmp_path):
    out = tmp_path / "out"
    for settings in ({"seed": 0}, {"seed": 1}):
        with pytest.raises(ProbeError, match="no problem"), RunFolder(out, settings):
            begin(out, models, QUESTION, progress=False)
            assert (out / PROMPTS).exists()
            raise ProbeError("no problem")
        assert not out.exists()


def test_a_default_prompt_is_not_called_the_model_s_own():
    asked = {"text": "Q: 1", "tokens": 3, "thinking": "none", "remarks": []}
    assert shown("m", asked | {"prompt": PLAIN_PROMPT}).startswith("m, asked by the default prompt, 3 tokens")
    assert shown("m", asked | {"prompt": "Q: {question}"}).startswith("m, asked by its own prompt, 3 tokens")
