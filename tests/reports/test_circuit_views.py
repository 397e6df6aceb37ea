"""Views of a circuit and of a long trace: what they show is what was measured, with scripts and without."""

import base64
import html
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from probe.circuits import Attention, Circuit, HeadScores, HeadTable, Links, SentenceAttribution
from probe.circuits.edges.graph import Graph
from probe.errors import ProbeError
from probe.html import MapSource, trace_map_html
from probe.reports import circuit_view, head_gallery, trace_map, write_trace_map

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TOKENS = ("<b>", " one", ".", " two", "&", ".", " three", ".")
SPANS = ((1, 3), (3, 6), (6, 8))


def by_sentence() -> Attention:
    """Two heads; the second one of block 5 attends from the third sentence to the second."""
    patterns = torch.zeros(1, 2, 3, 3)
    patterns[0, 0] = torch.tensor([[0.5, 0, 0], [0.1, 0.4, 0], [0.02, 0.01, 0.3]])
    patterns[0, 1] = torch.tensor([[0.5, 0, 0], [0.0, 0.4, 0], [0.05, 0.2, 0.3]])
    to = torch.zeros(1, 2, 8, 2, dtype=torch.int32)
    weight = torch.zeros(1, 2, 8, 2)
    to[0, 1, 7], weight[0, 1, 7] = torch.tensor([4, 1], dtype=torch.int32), torch.tensor([0.64, 0.16])
    return Attention(("one.", "two&.", "three."), (5,), patterns, TOKENS, SPANS, Links(to, weight))


def attributed() -> SentenceAttribution:
    scores = torch.zeros(3, 8)
    scores[2, 4] = -0.7
    return SentenceAttribution(TOKENS, SPANS, "embed", scores)


def deep(n_layers: int = 10) -> Circuit:
    graph = Graph(n_layers, 4, 2)
    scores = torch.zeros(graph.edges.shape)
    for name, score in {
        "embed->a0.h1<q>": -2.0,
        "a0.h1->a9.g1<k>": 1.0,
        "a0.h2->a9.g1<k>": 0.5,
        "a9.h3->logits": -0.2,
    }.items():
        scores[graph.edge(name)] = score
    return Circuit(graph, scores).top(4, whole_paths=False)


def decoded(view: str) -> dict:
    return json.loads(html.unescape(re.search(r'data-map="([^"]*)"', view)[1]))


def in_browser(tmp_path, view: str, script: str) -> dict:
    page = tmp_path / "page.html"
    listen = (
        f'addEventListener("load", () => {{ const told = {{}}; {script} document.title = JSON.stringify(told); }});'
    )
    page.write_text(f"<!doctype html><meta charset=utf-8><title>x</title>{view}<script>{listen}</script>")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    dumped = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True).stdout
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", dumped, re.S)[1]))


def test_a_map_keeps_every_value():
    values = torch.randn(7, 7, generator=torch.Generator().manual_seed(0))
    source = MapSource("s", values)
    view = trace_map_html(["x"] * 7, [(i, i + 1) for i in range(7)], [source])
    part = decoded(view)["sources"][0]
    levels = torch.frombuffer(bytearray(base64.b64decode(part["levels"])), dtype=torch.int16).float()
    back = (levels / 32767).square() * levels.sign() * part["max"]
    expected = values[torch.ones(7, 7).tril().bool()]
    torch.testing.assert_close(back, expected, atol=1e-7, rtol=0.01)
    assert "http" not in view


def test_sources_that_do_not_fit_are_counted():
    sources = [MapSource(f"s{i}", torch.zeros(7, 7)) for i in range(5)]
    spans = [(i, i + 1) for i in range(7)]
    view = trace_map_html(["x"] * 7, spans, sources, limit=120)
    assert len(decoded(view)["sources"]) == 2 and "3 of 5 sources are left out" in view
    with pytest.raises(ProbeError, match="too many for one trace map"):
        trace_map_html(["x"] * 7, spans, sources, limit=40)
    with pytest.raises(ProbeError, match="must not overlap"):
        trace_map_html(["x"] * 7, [(0, 3), (2, 4)], sources)


def test_a_map_without_scripts_is_a_table(tmp_path):
    view = trace_map(by_sentence(), heads=[(5, 1), (5, 0)]).data
    rows = [re.sub(r"<[^>]+>", "|", row) for row in view.split("<tr>")]
    assert any(row.startswith("|3||three.||2 (0.2)||1 (0.02)|") for row in rows)
    assert "<b>" not in view.split("<table>")[1] and "two&amp;." in view
    page = write_trace_map(tmp_path / "map.html", by_sentence(), attributed()).read_text()
    assert [each["name"] for each in decoded(page)["sources"]] == ["attribution at embed", "a5.h0", "a5.h1"]
    assert (
        by_sentence()._repr_html_().count('class="probe-map"')
        == attributed()._repr_html_().count('class="probe-map"')
        == 1
    )
    other = SentenceAttribution(TOKENS, ((1, 6), (6, 8)), "embed", torch.zeros(2, 8))
    with pytest.raises(ProbeError, match="different texts or sentences"):
        trace_map(by_sentence(), other)
    with pytest.raises(ProbeError, match="use sentence_attention"):
        trace_map(Attention(TOKENS, (0,), torch.zeros(1, 1, 8, 8)))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_follows_the_links_of_a_map(tmp_path):
    script = """
      const root = document.querySelector(".probe-map"), text = root.querySelector(".text");
      const key = (key) => text.dispatchEvent(new KeyboardEvent("keydown", { key }));
      const texts = (nodes) => [...nodes].map((each) => each.textContent);
      const lists = () => [...root.querySelectorAll(".found ol")].map((list) => texts(list.querySelectorAll("button")));
      told.text = text.textContent;
      told.closed = !root.querySelector("details").open;
      const canvas = root.querySelector(".square canvas"), side = canvas.width / 3;
      const column = () => [...canvas.getContext("2d").getImageData(1.5 * side, 2 * side, 1, side).data];
      const pixels = () => column().filter((_, i) => i % 4 === 3);
      told.solid = pixels();
      told.sentence = lists();
      key("ArrowLeft");
      told.token = lists();
      told.marked = texts(text.querySelectorAll(".to"));
      root.querySelector("select").value = 1;
      root.querySelector("select").dispatchEvent(new Event("change"));
      told.attribution = lists()[0];
      told.striped = pixels();
      told.less = texts(text.querySelectorAll(".s.less"));
      root.querySelector("button").click();
      key("ArrowUp");
      told.back = lists()[0];
    """
    source = [by_sentence().sources([(5, 1)])[0], attributed().source()]
    told = in_browser(tmp_path, trace_map_html(TOKENS, SPANS, source), script)
    assert told["text"] == "".join(TOKENS) and told["closed"]
    assert told["sentence"] == [["0.2002 two&.", "0.05001 one."]]
    assert len(told["token"]) == 2 and [each.split('"')[1] for each in told["token"][1]] == ["&", " one"]
    assert told["marked"] == [" one", "&"]
    assert min(told["solid"]) > 0 == min(told["striped"]) < max(told["striped"]), "stripes are less than zero"
    assert told["attribution"][0].startswith("−0.700") and told["less"] == [" two&."]
    assert len(told["back"]) == 1 and "3 three." in told["back"][0]


def test_a_drawing_has_every_edge():
    view = circuit_view(deep()).data
    edges = {edge: (a, b) for edge, a, b in re.findall(r'data-e="(\d)" data-from="([^"]+)" data-to="([^"]+)"', view)}
    assert edges["0"] == ("embed", "a0.h1") and edges["3"] == ("a9.h3", "logits")
    reached = set(re.findall(r'data-e="1" data-from="a0.h1" data-to="([^"]+)"', view))
    assert reached == {"a9.h2", "a9.h3"}, "two heads share these keys"
    assert re.findall(r'<path class="(\w+)" data-e="0"', view) == ["less"] and "http" not in view
    assert view.count("<tr data-e=") == 4 and "a0.h1-&gt;a9.g1&lt;k&gt;</code></td><td>+1.0000" in view
    nodes = dict(re.findall(r'<g class="node ([^"]+)" data-n="([^"]+)"', view)[::-1])
    assert {"fold", "head hidden"} <= set(nodes), "deep models are folded at first"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_folds_blocks(tmp_path):
    script = """
      const root = document.querySelector(".probe-circuit"), slider = root.querySelector("input");
      const shown = () => [...root.querySelectorAll(".node:not(.hidden)")].map((each) => each.dataset.n).sort();
      const paths = () => [...root.querySelectorAll("path:not(.hidden)")];
      const starts = () => new Set(paths().map((each) => each.getAttribute("d").split("C")[0])).size;
      told.folded = shown();
      told.role = root.querySelector("svg").getAttribute("role");
      told.before = starts();
      root.querySelector('[data-n="a0"]').dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" }));
      told.open = shown();
      told.after = starts();
      slider.value = 1;
      slider.dispatchEvent(new Event("input"));
      told.one = shown();
      root.querySelector('[data-n="a0.h1"]').dispatchEvent(new Event("pointerenter"));
      told.named = root.querySelector(".named").textContent;
    """
    told = in_browser(tmp_path, circuit_view(deep()).data, script)
    assert told["folded"] == ["a0", "a9", "embed", "logits"] and told["open"] == [
        "a0.h1",
        "a0.h2",
        "a9",
        "embed",
        "logits",
    ]
    assert (told["before"], told["after"]) == (3, 4) and told["role"] == "group"
    assert told["one"] == ["a0.h1", "embed", "logits"] and "embed->a0.h1<q> −2.0000" in told["named"]


def opacity(view: str) -> list[list[int]]:
    """How opaque each pixel of the first picture of a gallery is."""
    picture = Image.open(io.BytesIO(base64.b64decode(re.findall(r'base64,([^"]+)', view)[0])))
    return np.asarray(picture.convert("RGBA"))[..., 3].tolist()


def test_a_gallery_of_a_long_text_keeps_its_last_sentences():
    n = 401
    patterns = torch.zeros(1, 1, n, n)
    patterns[0, 0, n - 1, n - 2] = patterns[0, 0, 7, 5] = 0.5
    long = Attention(("x",) * n, (0,), patterns, ("x",) * n, tuple((i, i + 1) for i in range(n)))
    found = opacity(head_gallery(long).data)
    assert len(found) == len(found[0]) == 134 and found[133][133] == found[2][1] == 255


def test_a_gallery_shows_heads_with_their_scores():
    view = head_gallery(by_sentence(), {"kurtosis": {(5, 1): 3.5, (5, 0): -1.25}}).data
    assert re.findall(r"<h4>(.*?)</h4>", view) == ["a5.h1", "a5.h0"] and "3.50" in view and "−1.25" in view
    assert "<code>&amp;</code> <small>8%" in view, "0.64 of one of eight tokens"
    assert opacity(view) == [[0, 0, 0], [0, 0, 0], [128, 255, 0]], "the row of the third sentence, by roots"
    zeros = torch.zeros(6, 2)
    found = HeadTable("m", (HeadScores("induction", "x", zeros + torch.tensor([0.5, 0.25]), zeros, zeros + 0.03, 9),))
    view = head_gallery(by_sentence(), found).data
    assert "<dd>0.50 (p 0.030)</dd>" in view and re.findall(r"<h4>(.*?)</h4>", view) == ["a5.h0", "a5.h1"]
    with pytest.raises(ProbeError, match=r"no head a0\.h0"):
        head_gallery(by_sentence(), heads=[(0, 0)])
