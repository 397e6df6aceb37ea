"""One rule says what is thinking and what is the answer, for whatever tags a pair's thinking has."""

import pytest
from chat_templates import save_model

from probe.config import from_dict, to_dict
from probe.errors import ProbeError
from probe.models import KNOWN_TAGS, ModelConfig, Pair, PairConfig, ThinkTags, load_model, load_pair, read_thinking
from probe.problems import Problem, ProblemSet

HARMONY = "<|channel|>final<|message|>"


@pytest.mark.parametrize(
    ("close", "text", "answer"),
    [
        ("</think>", "7</think>42", "42"),
        ("</think>", "<think>7</think>42", "42"),
        ("</think>", "<think>7", None),
        ("</think>", "<think>7</think>42<think>8", None),
        ("</think>", "42", "42"),
        ("[/THINK]", "[THINK]7[/THINK]42", "42"),
        ("[/THINK]", "[THINK]7", None),
        ("[/THINK]", "<think>42", "<think>42"),
        (HARMONY, f"<|channel|>analysis<|message|>7<|end|>{HARMONY}42", "42"),
        (HARMONY, "<|channel|>analysis<|message|>7", None),
        ("◁/think▷", "◁think▷7◁/think▷42", "42"),
        ("So, finally:", "7 So, finally: 42", " 42"),
        ("", "<think>7</think>42", "<think>7</think>42"),
    ],
)
def test_the_answer_comes_after_the_last_closing_tag(close, text, answer):
    assert ThinkTags.of(close).answer_in(text) == answer


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        ("Q: 6 x 7?\n<think>", True),
        ("<User>6 x 7?<Assistant><think>\n", True),
        ("<Assistant><think>Okay, so", True),
        ("Q: 6 x 7?\n<think>\nOkay, so", True),
        ("6 x 7?\n<think>\n\n</think>\n\n", False),
        ("Reason inside <think> tags. Q: 6 x 7?\nA:", False),
        ("Put it between <think> and </think>. 6 x 7?", False),
        ("6 x 7?", False),
    ],
)
def test_a_prompt_may_open_the_thinking(prompt, opened):
    tags = ThinkTags()
    assert tags.opened_by(prompt) == opened
    assert tags.answer_in("It is 42.", prompt) == (None if opened else "It is 42.")
    assert tags.answer_in("Hm.</think>It is 42.", prompt) == "It is 42."


def test_a_problem_set_grades_after_a_prompt():
    problem = Problem("a", "6 x 7?", "42")
    problems = ProblemSet("mine", "numeric", {"test": (problem,)})
    assert problems.grade("7 x 6 = 42", problem).correct
    assert problems.grade("7 x 6 = 42", problem, prompt="6 x 7?[THINK]").correct
    cut = problems.grade("7 x 6 = 42", problem, prompt="6 x 7?[THINK]", think_close="[/THINK]")
    assert (cut.answer, cut.correct, cut.failed) == (None, False, False)


@pytest.mark.parametrize("tags", KNOWN_TAGS, ids=lambda tags: tags.close)
def test_any_known_thinking_is_read(tags):
    assert read_thinking(f"{tags.open}no, or yes?{tags.close} yes") == " yes"
    assert read_thinking(f"{tags.open}no, or") is None


@pytest.fixture
def marked(tmp_path):
    """``marked(tokens, template)``: a folder with a random model whose byte-level tokenizer has these added tokens."""

    def make(tokens=(), template=None):
        return save_model(tmp_path / str(len(list(tmp_path.iterdir()))), tokens, template)

    return make


@pytest.mark.parametrize(
    ("tokens", "template", "close"),
    [
        (["[THINK]", "[/THINK]"], None, "[/THINK]"),
        (["<|channel|>", "<|message|>"], None, HARMONY),
        (["<think>", "</think>"], "{{ messages[0].content }}[/THINK]", "</think>"),
        ([], "{{ messages[0].content.split('</thought>')[-1] }}", "</thought>"),
        ([], None, "</think>"),
    ],
)
def test_a_tokenizer_says_which_tags_its_model_has(marked, tokens, template, close):
    folder = marked(tokens, template)
    assert load_model(folder, device="cpu").think_tags == ThinkTags.of(close)
    own = load_model(ModelConfig(folder, think_close="END", think_open="BEGIN"), device="cpu")
    assert own.think_tags == ThinkTags("BEGIN", "END")


def test_a_pair_has_one_pair_of_tags(marked):
    plain, magistral = ModelConfig(marked()), ModelConfig(marked(["[THINK]", "[/THINK]"]))
    tags = ThinkTags("[THINK]", "[/THINK]")
    told = load_pair(PairConfig("told", plain, plain, think_close="[/THINK]"), device="cpu")
    assert told.base.think_tags == told.thinking.think_tags == told.think_tags == tags
    # A member that a command loads alone has them too.
    assert load_model(told.config.base, device="cpu").think_tags == tags
    base, thinking = (load_model(member, device="cpu") for member in (plain, magistral))
    found = Pair(PairConfig("found", plain, magistral), base, thinking)
    assert found.think_tags == base.think_tags == thinking.think_tags == tags


def test_settings_of_earlier_versions_are_the_same_settings():
    model = {"path": "org/name", "revision": None, "prompt": "{question}", "trust_remote_code": False}
    assert to_dict(from_dict(ModelConfig, model)) == model
    own = ModelConfig("org/name", think_close="</r>", think_open="<r>")
    assert from_dict(ModelConfig, to_dict(own)) == own
    told = {"name": "p", "base": model, "thinking": model, "think_close": "[/THINK]"}
    assert from_dict(PairConfig, told).think_close == "[/THINK]"


def test_an_empty_closing_tag_is_refused():
    with pytest.raises(ProbeError, match="think_close of model 'a' is empty"):
        ModelConfig("a", think_close="")
