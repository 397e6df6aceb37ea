"""Every public view that shows tokens shows the text: its pieces joined are what the model's tokenizer decodes."""

import io
import re
from html import unescape

import pytest
import torch
from rich.console import Console
from tokenizers_of_all_kinds import KINDS, TEXT
from transformers import LlamaConfig, LlamaForCausalLM

from probe.activations import Document, harvest
from probe.anchors import critical_tokens, roll_out
from probe.circuits import attention, logit_lens, read_pairs, sentence_attention
from probe.diff import token_trace
from probe.hybrid import HybridTrace
from probe.models import Model, Pair, PairConfig
from probe.problems import Problem, ProblemSet
from probe.reports import LiveTokens, trace_view
from probe.traces import Traces, make_trace

PROBLEM = Problem("a", "What is it?", "42")
PROBLEMS = ProblemSet("made", "numeric", {"test": (PROBLEM,)})


#: Kinds whose views could differ; the others differ in how they encode.
SHOWN = ("byte_level", "byte_fallback", "byte_fallback_plain", "metaspace_first", "suffixes", "words", "word_pieces")


@pytest.fixture(params=SHOWN, scope="module")
def model(request: pytest.FixtureRequest) -> Model:
    tokenizer = KINDS[request.param]()
    config = LlamaConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, vocab_size=len(tokenizer)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Model(LlamaForCausalLM(config), tokenizer)


@pytest.fixture(scope="module")
def ids(model: Model) -> list[int]:
    return model.tokenizer(TEXT, add_special_tokens=False).input_ids


def hybrid_trace(ids: list[int], steered: bool) -> HybridTrace:
    n = len(ids)
    return HybridTrace("a", ids, [steered] * n, [0] * n, [1.0] * n, [0] * n, ids, ids, [0.0] * n, False)


@pytest.mark.parametrize("steered", [False, True])
def test_trace_view(model, ids, steered):
    page = trace_view(hybrid_trace(ids, steered), model.decode, ["check"]).data
    shown = unescape(re.sub("<[^>]+>", "", page.split("</div>")[0]))
    assert shown == model.decode(ids)
    assert "\N{REPLACEMENT CHARACTER}" not in page, "in no tooltip either"


def test_chat(model, ids):
    out = io.StringIO()
    live = LiveTokens(Console(file=out, width=500), model.decode, ["check"])
    live.begin("hybrid")
    for token in ids:
        live.add({"behaviour": [0], "steered": [token == ids[1]], "tokens": [token]})
    live.end()
    said = out.getvalue().removeprefix("\nhybrid\n")
    assert said.removesuffix(f"  ({live.steered} of {len(ids)} tokens steered)\n") == model.decode(ids)


def test_inside_a_model(model, ids):
    tokens = torch.tensor(ids)
    assert "".join(attention(model, tokens).names) == model.decode(ids)
    lens = logit_lens(model, tokens)
    assert "".join(lens.tokens) == model.decode(ids)
    assert not any("\N{REPLACEMENT CHARACTER}" in said for row in lens.said for said in row)
    half = len(ids) // 2
    names = sentence_attention(model, tokens, [(0, half), (half, len(ids))]).names
    assert all(name in model.decode(ids) for name in names)


def test_token_index(model, ids, tmp_path):
    trace = make_trace(model, PROBLEMS, PROBLEM, ids, False)
    documents = [Document(tuple(ids), ((1, 4), (4, len(ids) - 1)))]
    for i, (what, text) in enumerate(
        (
            ([TEXT], model.decode(ids)),
            (Traces("m", "made", [trace]), trace.text),
            (documents, model.decode(ids[1:-1])),
        )
    ):
        store = harvest(model, what, "resid_post.1", unit="token", folder=tmp_path / str(i))
        assert "".join(store.index["text"].to_pylist()) == text
    sentences = harvest(model, documents, "resid_post.1").texts
    assert "".join(sentences) == model.decode(ids[1:-1])


def test_traces_of_models(model, ids):
    same = Pair(PairConfig("same", model.config, model.config), model, model)
    trace = make_trace(model, PROBLEMS, PROBLEM, ids, False)
    assert "".join(trace.sentence_texts) == trace.text == model.decode(ids)
    assert [s.token_start for s in trace.sentences[1:]] == [s.token_end for s in trace.sentences[:-1]]
    assert "".join(token_trace(same, PROBLEM, trace).tokens) == trace.text
    few = make_trace(model, PROBLEMS, PROBLEM, ids[:3], False)
    found = critical_tokens(model, PROBLEMS, PROBLEM, few, n_samples=1, max_new_tokens=1)
    assert "".join(found.tokens) == few.text


def test_rollouts_are_graded_as_one_text(model, ids):
    """A continuation begins with its space, and the graded text is that of all tokens."""
    trace = make_trace(model, PROBLEMS, PROBLEM, ids, False)
    settings = {"n_samples": 3, "max_new_tokens": 4}
    (found,) = roll_out(model, PROBLEMS, PROBLEM, trace, places=[2], forced=" The answer is", **settings)
    put = model.decode(ids[:2]) + " The answer is"
    for text, answer in zip(found.texts, found.answers, strict=True):
        assert PROBLEMS.grade(put + text, PROBLEM).answer == answer
        assert not any(word in put + text for word in ("isThe", "isWait", "  The"))


def test_pairs_take_the_token_that_follows(model, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"clean": "The answer is", "corrupt": "The answer it", "right": " 42", "wrong": " 7"}\n')
    pairs = read_pairs(model, path)
    for clean, right in zip(pairs.clean, pairs.right, strict=True):
        before = clean[0].tolist()
        said = model.decode([*before, int(right[0])])
        assert (model.decode(before) + " 42").startswith(said)
        assert said != model.decode(before)
