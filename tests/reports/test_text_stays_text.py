"""Text of models, files and people is shown as it is: in HTML, in scripts, and in figures, which read markup too."""

import json
import re
from html.parser import HTMLParser

import pytest
import torch

from probe.anchors import CriticalTokens, ForcedAnswers
from probe.circuits import Attention, LensReading
from probe.diff import TokenTrace
from probe.hybrid import HybridTrace
from probe.models import Model
from probe.models.config import ModelConfig
from probe.problems import Problem, ProblemSet
from probe.reports import (
    attention_patterns,
    colored_tokens,
    comparison_figure,
    forced_figure,
    lens_figure,
    sentence_figure,
    series_figure,
    token_trace_figure,
    trace_view,
    transfer_figure,
)
from probe.traces import Sentence, Trace, Traces

HOSTILE = (
    "</script><b>x",
    "<!--<script>",
    "]]></style>",
    "&lt;i&gt; & &amp;",
    "{{ 7 * 7 }}{% x %}",
    "\\u003c\\n\\",
    "a\u2028b\u2029c",
    "\" onclick=\"x' onload='",
    "%{y}<br>%{x:.2f}",
    "<a href='javascript:x'>y</a>",
)
VOID = {"br"}


class Page(HTMLParser):
    """The visible text, the tags, the titles and the scripts, as a browser reads them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text, self.titles, self.scripts, self.tags, self._open = "", [], [], [], []
        self.feed(source)
        self.close()
        assert not self._open, "every element is closed"

    def handle_starttag(self, tag, attrs):
        assert not any(name.startswith("on") for name, _ in attrs)
        self.tags.append(tag)
        self.titles += [value for name, value in attrs if name == "title"]
        self._open += [] if tag in VOID else [tag]
        self.scripts += [""] if tag == "script" else []

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")

    def handle_data(self, data):
        if self._open[-1:] == ["script"]:
            self.scripts[-1] += data
        else:
            self.text += data


def as_plotly_shows(text: str) -> str:
    """Without the tags that plotly reads, and with the entities that it knows; it leaves others as they are."""
    known = {"mu": "μ", "amp": "&", "lt": "<", "gt": ">", "nbsp": "\xa0", "times": "×", "plusmn": "±", "deg": "°"}
    text = re.sub(r"<[^>]*>", "", text)
    return re.sub(r"&(?:#(\d+)|([a-z]+));", lambda m: chr(int(m[1])) if m[1] else known.get(m[2], m[0]), text)


def strings(figure) -> list[str]:
    found: list[str] = []

    def walk(value):
        if isinstance(value, str):
            found.append(value)
        for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(each)

    walk(json.loads(figure.to_json()))
    return found


def trace_of(text: str) -> Trace:
    half = len(text) // 2
    sentences = (Sentence(0, half, 0, 0), Sentence(half, len(text), 0, 0))
    return Trace(text, text, (), text, sentences, None, text, True, False)


def lens_of(*tokens: str) -> LensReading:
    zero = torch.zeros(1, len(tokens))
    return LensReading(tokens, zero.long(), (tokens,), zero, zero[:, 1:], zero, (0,))


@pytest.mark.parametrize("text", HOSTILE)
def test_notebook_views(text, tiny_folder, words):
    from probe.models import load_model

    hf = load_model(tiny_folder("llama"), device="cpu").hf
    model = Model(hf, words, ModelConfig(path=text, prompt=f"\n{text} {{question}}"), name=text)
    tokens = (text, "", "b")
    trace = HybridTrace("a", [0, 1], [True] * 2, [0] * 2, [1.0] * 2, [0] * 2, [0, 1], [1, 1], [0.0] * 2, False)
    said = {0: text, 1: "z"}
    views = [
        Traces(text, text, [trace_of(text)])._repr_html_(),
        model._repr_html_(),
        ProblemSet(text, "exact", {"train": (Problem(text, text, text),)})._repr_html_(),
        CriticalTokens(tokens, (0.1, 0.2, 0.3), 1)._repr_html_(),
        ForcedAnswers((text,), (0.5, 0.5), (text, None), (0.5, 0.5), (0, 1))._repr_html_(),
        lens_of(*tokens)._repr_html_(),
        trace_view(trace, lambda ids: "".join(said[i] for i in ids), [text]).data,
        colored_tokens(tokens, [0.1, -0.2, 0.3]).data,
    ]
    for view in views:
        page = Page(view)
        assert text in page.text
        # The reader of traces has a style and a script, in which no text is.
        assert not {"a", *([] if view is views[0] else ["style", "script"])} & set(page.tags)
        assert page.tags.count("script") <= 1 and all(text not in script for script in page.scripts)
        assert page.tags.count("b") + page.tags.count("i") <= 3, "our own"
    titles = Page(views[6]).titles
    assert all(f"0 {text}, strength" in title for title in titles)


@pytest.mark.parametrize("text", HOSTILE)
def test_scripts(text):
    page = attention_patterns([text, "b"], torch.ones(1, 2, 2), [text]).data
    (script,) = Page(page).scripts
    assert not re.search(r"<!--|</|<script", script.split("probeAttention(", 2)[-1])
    data = json.loads(re.search(r'probeAttention\("[\w-]+", (.*)\);$', script)[1])
    assert data["tokens"] == [text, "b"] and data["names"] == [text]


@pytest.mark.parametrize("text", HOSTILE)
def test_figures(text):
    zero = torch.zeros(2)
    run = {"name": text, "results": {"gap_recovered": {text: {"value": 0.5, "ci": [0.4, 0.6]}}}, "settings": {}}
    sides = {"base": {"base": 0.5, "thinking": 0.5}, "thinking": {"base": 0.5, "thinking": 0.5}}
    series = [{"name": text, "steps": [0, 1], "importance": [[[0.1]], [[0.2]]]}]
    figures = [
        lens_figure(lens_of(text, "b")),
        token_trace_figure(TokenTrace((text, "b"), zero, zero, zero, zero)),
        sentence_figure(Attention((text, "b"), (0,), torch.zeros(1, 1, 2, 2)), 0, 0),
        forced_figure(ForcedAnswers((text,), (0.5, 0.5), (text, None), (0.5, 0.5), (0, 1))),
        comparison_figure({"runs": [run, run]}),
        series_figure(series),
        transfer_figure({"accuracy": sides, "steered": sides}, text),
    ]
    line = " ".join(text.split())
    for figure in figures:
        shown = [" ".join(as_plotly_shows(each).split()) for each in strings(figure)]
        starts = [line[: size - 1] for size in (8, 14, 20)]
        assert any(line in each or each.strip().startswith(tuple(starts)) for each in shown), shown
        for each in strings(figure):
            if "%{" in each:
                assert "%{y}<br>%{x:.2f}" not in each, "plotly would read a variable in the text"
