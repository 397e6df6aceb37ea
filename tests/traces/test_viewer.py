"""The reader of traces: nothing is lost on the way into a page, little is held, and a browser shows it."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from probe.html import SHOWN, Reading, reader_html
from probe.traces import Sentence, Trace, Traces

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def units(text: str) -> int:
    """The length of a text in JavaScript."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def parts(view: str) -> list[str]:
    """The text of each ``pre`` of the first trace, as a browser reads it."""
    found = re.findall(r'<pre class="text"[^>]*>\n(.*?)</pre>', view, re.S)
    return [html.unescape(part.replace("&#13;", "\r")) for part in found]


def data_of(view: str) -> dict:
    return json.loads(html.unescape(re.search(r'data-trace="([^"]*)"', view)[1]))


def trace_of(*sentences: str, prompt: str = "Q:", think_end: int | None = None, **given) -> Trace:
    """A trace with one token for each word, so that words that repeat are tokens that repeat."""
    ends = list(accumulate(map(len, sentences)))
    counts = [0, *accumulate(len(sentence.split()) for sentence in sentences)]
    spans = tuple(
        Sentence(end - len(sentence), end, *counts[i : i + 2])
        for i, (end, sentence) in enumerate(zip(ends, sentences, strict=True))
    )
    words: dict[str, int] = {}
    text = "".join(sentences)
    tokens = tuple(words.setdefault(word, len(words)) for word in text.split())
    return Trace("story/1", prompt, tokens, text, spans, think_end, "42", True, **{"truncated": False, **given})


@given(
    st.lists(st.text(st.sampled_from("a \n\r<&\"'𝟜🎉\ud800\0é"), min_size=1, max_size=9), min_size=1, max_size=6),
    st.integers(0, 30),
    st.integers(0, 80),
)
def test_the_text_and_its_sentences_come_back(sentences, thinking, room):
    text = "".join(sentences)
    ends = list(accumulate(map(len, sentences)))
    view = reader_html([Reading("p", text, ends, thinking=min(thinking, len(text)))], limit=room)
    shown, data = parts(view), data_of(view)
    clean = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").replace("\0", "\ufffd")
    assert sum(data["sizes"]) == units("".join(shown))
    if "gap" not in data:
        assert "".join(shown) == clean
        assert data["sizes"] == [units(sentence) for sentence in sentences]
        if data.get("thinking"):
            assert units(shown[0]) == data["thinking"], "the thinking is folded without scripts too"
    else:
        assert sum(len(html.escape(part, quote=False).replace("\r", "&#13;").encode()) for part in shown) <= room
        joined, left = "".join(shown), int(re.search(r"… ([\d,]+) char", data["gone"])[1].replace(",", ""))
        at = next(i for i in range(len(joined) + 1) if units(joined[:i]) == data["gap"])
        assert joined[:at] == clean[:at] and clean.endswith(joined[at:]) and len(joined) + left == len(clean)


def test_only_what_is_shown_is_read():
    read = set()

    class Stored(tuple):
        def __getitem__(self, index):
            read.add(index)
            return super().__getitem__(index)

        def __iter__(self):
            raise AssertionError("all are read")

    traces = Traces("m", "p", [])
    traces.traces = Stored([trace_of("A. ", "B.")] * 200)
    view = type(traces)._repr_html_.__get__(Shares(traces))()
    assert len(read) <= SHOWN + 9, "the checks of types under test read some at random"
    assert view.count('<details class="trace"') == SHOWN
    assert "the first 20 of 200 traces; [20:40] shows the next" in view


class Shares:
    """Traces without the shares in their name, which read every grade."""

    def __init__(self, traces: Traces) -> None:
        self.traces = traces.traces

    def __repr__(self) -> str:
        return "Traces"


def test_long_traces_are_small_and_said_to_be_cut():
    long = trace_of(*(f"Sentence {i} of a long trace. " for i in range(60_000)), "The answer is 42.")
    view = Traces("m", "p", [long, *[trace_of("A short one.")] * 30])._repr_html_()
    assert len(view.encode()) < 2_000_000
    assert "characters left out" in view and "an index, such as [0], shows a whole trace" in view
    assert "A short one." in view and "The answer is 42." in view
    assert "left out …" not in reader_html([Reading("p", long.text[:9000], [9000])])


def test_a_heading_says_what_is_known():
    close = trace_of("<think>A b. ", "</think>", "42.", think_end=20, sample=3, author="r1", truncated=True)
    view = close._repr_html_()
    for said in ("✓", "story/1", "answer 42", "4 tokens", "3 sentences", "sample 3", "by r1", "truncated"):
        assert said in view
    assert "thinking: 2 sentences, 3 tokens" in view and "limit on new tokens stopped" in view
    assert "<details><summary>thinking" in view, "folded"
    assert "not closed" in replace(close, think_end=None)._repr_html_()
    assert "not closed" in trace_of("A b.", prompt="Q\n<think>\n")._repr_html_()
    failed = replace(close, failed=True, answer=None)._repr_html_()
    assert "–" in failed and "no answer" in failed


def test_a_loop_is_found_and_shown_twice():
    view = trace_of("First. ", *["Wait, no. "] * 40, truncated=True)._repr_html_()
    data = data_of(view)
    assert data["looped"] == "… 40 times in all"
    assert data["loop"] == [len("First. " + "Wait, no. " * 2), len("First. " + "Wait, no. " * 40)]
    assert "loop" not in data_of(trace_of("First. ", *["Wait, no. "] * 5)._repr_html_()), "too short for a loop"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser")
def test_a_browser_opens_searches_and_folds(tmp_path: Path):
    first = trace_of("<think>A 𝟜 <b>. ", "Check that. ", "</think>\n", "It is 42.", think_end=37)
    loop = trace_of("First. ", *["Wait, no. "] * 40, truncated=True)
    view = Traces("m", "p", [first, loop])._repr_html_()
    script = """
    addEventListener("load", async () => {
      const [one, two] = document.querySelectorAll(".probe-reader"), told = {};
      one.querySelector("details.trace").open = true;
      const box = one.querySelector("input");
      const wait = (ms) => new Promise((done) => setTimeout(done, ms));
      await wait(100);
      told.sentences = [...one.querySelectorAll(".s")].map((each) => each.textContent);
      told.titles = one.querySelector(".s").title;
      told.folded = !one.querySelector(".thinking").open;
      box.value = "check  THAT";
      box.dispatchEvent(new Event("input"));
      await wait(400);
      told.hidden = [...one.querySelectorAll("details.trace")].map((each) => each.hidden);
      one.querySelectorAll(".tools button")[1].click();
      await wait(100);
      told.opened = one.querySelector(".thinking").open;
      told.status = one.querySelector(".tools .told").textContent;
      told.marks = [...CSS.highlights.values()].map((each) => [...each].map(String)).flat();
      await two.probe.open(1, 20);
      told.loop = [...two.querySelectorAll("summary")].map((each) => each.textContent).filter((each) => each[0] == "…");
      told.here = two.querySelector(".here").closest("details").open;
      told.unopened = two.querySelector("details.trace").querySelectorAll(".s").length;
      document.title = JSON.stringify(told);
    });
    """
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><title>x</title>{view}{view}<script>{script}</script>")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    dumped = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True).stdout
    told = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", dumped, re.S)[1]))
    assert "".join("".join(told["sentences"]).split()) == "".join(first.text.split())
    assert told["titles"] == "sentence 1 of 4 · tokens 1 to 3"
    assert told["folded"] and told["opened"] and told["hidden"] == [False, True]
    assert told["status"] == "1 of 1" and set(told["marks"]) == {"Check that"}
    assert told["loop"] == ["… 40 times in all"] and told["here"] and told["unopened"] == 0
