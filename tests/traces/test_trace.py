from copy import copy
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

from probe.errors import ProbeError
from probe.models import Model, ModelConfig, ThinkTags, load_model
from probe.problems import Problem, ProblemSet
from probe.traces import Trace, Traces, make_trace

SUMS = ProblemSet(
    "sums", "numeric", {"test": (Problem("a", "What is 1 + 1?", "2"), Problem("b", "What is 2 + 2?", "4"))}
)


@pytest.fixture(scope="module")
def bytewise(tiny_folder) -> Model:
    """A model whose tokens are bytes, so characters span several of them."""
    return load_model(tiny_folder("llama", "letters"), device="cpu")


def make(model: Model, text: str, truncated: bool = False) -> Trace:
    tokens = model.tokenizer(text, add_special_tokens=False).input_ids
    return make_trace(model, SUMS, SUMS.take("test", 1)[0], tokens, truncated)


def check_spans(trace: Trace) -> None:
    assert "".join(trace.sentence_text(s) for s in trace.sentences) == trace.text
    assert [i for s in trace.sentences for i in range(s.token_start, s.token_end)] == list(range(len(trace.tokens)))


def test_what_a_trace_holds(bytewise: Model) -> None:
    trace = make(bytewise, " Hm. 1 + 1 = 3?\n</think> So it is 2.")
    assert [trace.sentence_text(s) for s in trace.sentences] == [" Hm.", " 1 + 1 = 3?", "\n</think> So it is 2."]
    assert trace.think_end is not None
    assert trace.text[trace.think_end :] == " So it is 2."
    assert (trace.answer, trace.correct, trace.truncated) == ("2", True, False)
    assert trace.prompt == bytewise.prompt_text("What is 1 + 1?")
    check_spans(trace)


@pytest.mark.parametrize("close", ["[/THINK]", "◁/think▷", "<|channel|>final<|message|>"])
def test_one_description_of_thinking_cuts_and_grades(bytewise: Model, close: str, tmp_path: Path) -> None:
    tags = ThinkTags.of(close)
    text = f"{tags.open}Try \\boxed{{7}}. No.{close}It is 2."
    ids = bytewise.tokenizer(text, add_special_tokens=False).input_ids
    problem = SUMS.take("test", 1)[0]
    trace = make_trace(bytewise, SUMS, problem, ids, False, think_close=close)
    assert (trace.answer, trace.correct, trace.think_tags) == ("2", True, tags)
    assert trace.sentence_texts[-1] == f"{close}It is 2."
    cut = make_trace(bytewise, SUMS, problem, ids[: -len(f"{close}It is 2.".encode())], True, think_close=close)
    assert (cut.answer, cut.correct, cut.think_end) == (None, False, None)
    Traces("m", "sums", [trace, cut]).save(tmp_path)
    assert list(Traces.load(tmp_path)) == [trace, cut]


def test_thinking_that_the_prompt_opened_must_be_closed(bytewise: Model) -> None:
    model = copy(bytewise)
    model.config = ModelConfig(bytewise.config.path, prompt="{question}\n<think>\n")
    assert make(bytewise, "1 + 1 = 2", truncated=True).answer == "2"
    cut = make(model, "1 + 1 = 2", truncated=True)
    assert (cut.answer, cut.correct, cut.failed) == (None, False, False)
    assert make(model, "1 + 1 = 3</think>2").correct


def test_traces_of_earlier_versions_have_the_tag_that_closes_them(bytewise: Model, tmp_path: Path) -> None:
    tokens = bytewise.tokenizer("Hm.[/THINK]It is 2.", add_special_tokens=False).input_ids
    trace = make_trace(bytewise, SUMS, SUMS.take("test", 1)[0], tokens, False, "[/THINK]")
    path = Traces("m", "sums", [trace, make(bytewise, "Hm.</think>2")]).save(tmp_path)
    table = pq.read_table(path)
    pq.write_table(table.drop_columns("think_tags"), path)
    assert [each.think_tags.close for each in Traces.load(tmp_path)] == ["[/THINK]", "</think>"]


def test_nothing_emitted(bytewise: Model) -> None:
    trace = make(bytewise, "", truncated=True)
    assert (trace.text, trace.sentences, trace.think_end, trace.answer, trace.correct) == ("", (), None, None, False)


@settings(deadline=None)
@given(text=st.text(alphabet="aB. \n?中👩\u200d👧", max_size=50))
def test_token_spans_agree_with_character_spans(bytewise: Model, text: str) -> None:
    trace = make(bytewise, text)
    check_spans(trace)
    for s in trace.sentences:
        assert bytewise.decode(list(trace.tokens[s.token_start : s.token_end])) == trace.sentence_text(s)


@settings(deadline=None)
@given(data=st.data())
def test_any_emitted_ids(bytewise: Model, data: st.DataObject) -> None:
    """A model may stop in the middle of a character or emit bytes that are none."""
    tokens = data.draw(st.lists(st.integers(0, len(bytewise.tokenizer) - 1), max_size=40))
    check_spans(make_trace(bytewise, SUMS, SUMS.take("test", 1)[0], tokens, True))


def test_a_token_over_a_border_belongs_to_the_sentence_it_begins_in(bytewise: Model, words) -> None:
    trace = make(bytewise, "A.B")
    assert len(trace.sentences) == 1  # sentencex does not split here; but a token may hold ".\nB" in other tokenizers
    tokenizer = type(words)(tokenizer_object=words.backend_tokenizer)
    tokenizer.add_tokens([".\n\nSo"])
    crossing = Model(bytewise.hf, tokenizer)
    trace = make(crossing, " First.\n\nSo the")
    found = [(trace.sentence_text(s), s.token_start, s.token_end) for s in trace.sentences]
    assert found == [(" First.", 0, 2), ("\n\nSo the", 2, 3)]


def test_saved_and_loaded(bytewise: Model, tmp_path: Path) -> None:
    some = [make(bytewise, "1. Ä 中.\n</think> 3"), make(bytewise, "", True), replace(make(bytewise, "2"), failed=True)]
    traces = Traces("tiny", "sums", some, seconds=1.25)
    traces.save(tmp_path)
    loaded = Traces.load(tmp_path)
    assert loaded == traces == Traces("tiny", "sums", some)
    assert (loaded.seconds, loaded[1:].seconds) == (1.25, None)
    assert isinstance(loaded[1:], Traces)
    assert list(loaded) == some
    assert not list(tmp_path.glob(".*")), "no part of a file is left"
    empty = Traces("tiny", "sums", [])
    empty.save(tmp_path / "none")
    assert Traces.load(tmp_path / "none") == empty


def test_accuracy_leaves_out_what_could_not_be_graded(bytewise: Model) -> None:
    right, wrong = make(bytewise, "2"), make(bytewise, "3")
    assert Traces("m", "p", [right, wrong]).accuracy == 0.5
    assert Traces("m", "p", [right, replace(wrong, failed=True)]).accuracy == 1.0
    assert Traces("m", "p", []).accuracy != Traces("m", "p", []).accuracy


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=r"traces\.parquet does not exist"):
        Traces.load(tmp_path)
    (tmp_path / "traces.parquet").write_bytes(b"PAR1 but cut off")
    with pytest.raises(ProbeError, match="cannot be read"):
        Traces.load(tmp_path)


def test_a_trace_is_shown_in_one_line(bytewise: Model) -> None:
    problem = Problem("a", "6 x 7?", "42")
    ids = bytewise.tokenizer("It is 41. The answer is 42.", add_special_tokens=False).input_ids
    trace = make_trace(bytewise, ProblemSet("mine", "numeric", {"test": (problem,)}), problem, ids, False)
    assert repr(trace) == f"Trace('a': {len(ids)} tokens, 2 sentences, answer '42', correct)"


def test_no_traces_have_no_shares() -> None:
    assert repr(Traces("m", "p", [])) == "Traces('m' on 'p': 0)"


def test_shown(bytewise: Model) -> None:
    traces = Traces("<tiny>", "sums", [make(bytewise, "a <b. 2")])
    assert "100.0% correct" in repr(traces)
    assert "&lt;tiny&gt;" in traces._repr_html_()
    assert "a &lt;b." in traces._repr_html_()
