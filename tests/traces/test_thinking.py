"""Traces of models of every published kind of thinking: what is thinking, what is the answer, and the grade."""

import chat_templates as templates
import pytest

from probe.models import ModelConfig, ThinkTags, load_model
from probe.problems import Problem, ProblemSet
from probe.traces import make_trace

PROBLEM = Problem("a", "What is 6 x 7?", "42")
PROBLEMS = ProblemSet("mine", "numeric", {"test": (PROBLEM,)})
OFF, ON = {"enable_thinking": False}, {"enable_thinking": True}
CHANNELS = "<|channel|>analysis<|message|>"
FINAL = "<|end|><|start|>assistant<|channel|>final<|message|>"
THOUGHT = "Is it 41? No."
"""The answer to be found is after it; a wrong split finds 41."""

CASES = {
    "Qwen3": ("QWEN3", {}, ["<think>", "</think>"], "answer", f"<think>\n{THOUGHT}\n</think>\n\n", "42"),
    "Qwen3, off": ("QWEN3", OFF, ["<think>", "</think>"], "closed", "", "42"),
    "QwQ": ("QWQ", {}, ["<think>", "</think>"], "opened", f"{THOUGHT}</think>", "42"),
    "R1": ("R1", {}, ["<think>", "</think>"], "opened", f"{THOUGHT}\n</think>\n\n", "42"),
    "ORZ": ("ORZ", {}, [], "opened", f" {THOUGHT} </think>\n", "<answer> \\boxed{42} </answer>"),
    "SmolLM3": ("SMOLLM3", {}, ["<think>", "</think>"], "answer", f"<think>{THOUGHT}</think>", "42"),
    "SmolLM3, off": ("SMOLLM3", OFF, ["<think>", "</think>"], "closed", "", "42"),
    "gpt-oss": ("GPT_OSS", {"reasoning_effort": "high"}, ["<|channel|>", "<|end|>", "<|start|>"], "answer",
                f"{CHANNELS}{THOUGHT}{FINAL}", "42"),
    "gpt-oss, without analysis": ("GPT_OSS", {"reasoning_effort": "low"}, ["<|channel|>"], "answer",
                                  "<|channel|>final<|message|>", "42"),
    "Magistral": ("MAGISTRAL", {}, ["[THINK]", "[/THINK]"], "answer", f"[THINK]{THOUGHT}[/THINK]", "42"),
    "DeepSeek-V3.1": ("DEEPSEEK_V31", {"thinking": True}, ["</think>"], "opened", f"{THOUGHT}</think>", "42"),
    "DeepSeek-V3.1, off": ("DEEPSEEK_V31", {"thinking": False}, ["<think>", "</think>"], "closed", "", "42"),
    "GLM-4.5": ("GLM_45", {}, ["<think>", "</think>"], "answer", f"\n<think>{THOUGHT}</think>\n", "42"),
    "GLM-4.5, off": ("GLM_45", OFF, ["<think>", "</think>"], "closed", "\n", "42"),
    "Granite 3.2": ("GRANITE_32", {"thinking": True}, [], "answer",
                    f"Here is my thought process: {THOUGHT}\n\nHere is my response:", " 42"),
    "Gemma 4": ("GEMMA_4", ON, ["<|channel>", "<channel|>"], "answer", f"<|channel>thought\n{THOUGHT}<channel|>", "42"),
    "Gemma 4, off": ("GEMMA_4", {}, ["<|channel>", "<channel|>"], "closed", "", "42"),
    "a prefill": ("QWEN3", None, ["<think>", "</think>"], "opened", f"{THOUGHT}</think>", "42"),
    "no thinking": ("LLAMA_3", {}, [], "answer", "", "42"),
}  # fmt: skip
"""Template, its arguments, added tokens, where thinking is, what comes before the answer, and the answer."""


@pytest.mark.parametrize("case", CASES)
def test_thinking_and_answer_of_a_trace_are_told_apart(tmp_path, case):
    template, arguments, tokens, place, before, answer = CASES[case]
    folder = templates.save_model(tmp_path, tokens, getattr(templates, template))
    prefill = "<think>\n" if arguments is None else ""
    model = load_model(ModelConfig(folder, template=arguments or {}, prefill=prefill), device="cpu")
    prompt = model.prompt_text(PROBLEM.question)
    assert model.think_tags.place(prompt) == place

    def traced(text: str, truncated: bool = False):
        ids = model.tokenizer(text, add_special_tokens=False).input_ids
        return make_trace(model, PROBLEMS, PROBLEM, ids, truncated)

    whole = traced(before + answer)
    assert (whole.answer, whole.correct) == ("42", True)
    close = model.think_tags.close
    assert whole.think_end == (before.rindex(close) + len(close) if close in before else None)
    if THOUGHT in before:
        starts = {sentence.start for sentence in whole.sentences}
        closing = before.rindex(FINAL if FINAL in before else close)
        white = closing - len(before[:closing].rstrip())
        assert closing - white in starts, "the closing tag begins a sentence"
        assert not any("41" in text and answer in text for text in whole.sentence_texts)
        cut = traced(before[: before.index(THOUGHT) + len(THOUGHT)], truncated=True)
        assert (cut.answer, cut.correct, cut.think_end) == (None, False, None)


def test_channels_are_one_sentence_with_what_opens_them():
    tags = ThinkTags.of("<|channel|>final<|message|>")
    text = f"{CHANNELS}Try 41.{FINAL}It is 42."
    assert tags.pattern.findall(text) == [CHANNELS, FINAL]
    assert tags.as_default(text) == "<think>Try 41.</think>It is 42."
