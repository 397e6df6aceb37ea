"""The page of a discovery: it stands alone, says what was found, and nothing in a trace becomes markup."""

import json
from copy import deepcopy
from html.parser import HTMLParser

import pytest
from discovered import found
from rich.console import Console

from probe.errors import ProbeError
from probe.reports.discovery.page import discovery_headline, discovery_table, write_discovery_report

HOSTILE = "</script><script>alert(1)</script><b>bold</b> & {{ 7 * 7 }} [bold]"


class Page(HTMLParser):
    """What a browser would see: the tags, the text outside scripts, and the data of the traces."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = self.data_text = ""
        self.traces: list[str] = []
        self.in_data = self.in_text = False
        self.feed(source)
        self.words = " ".join(self.text.split())
        self.data = json.loads(self.data_text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.in_data = dict(attrs).get("id") == "data"
        if dict(attrs).get("class") == "trace":
            self.traces.append("")
        if tag == "pre":
            self.in_text = dict(attrs).get("class") == "text"

    def handle_endtag(self, tag: str) -> None:
        self.in_text = self.in_text and tag != "pre"

    def handle_data(self, data: str) -> None:
        if self.in_text:
            self.traces[-1] += data.removeprefix("\n")
        if self.cdata_elem is None:
            self.text += data
        elif self.in_data:
            self.data_text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)

    @property
    def figures(self) -> set[str | None]:
        return {attributes["id"] for tag, attributes in self.tags if (attributes.get("id") or "").startswith("figure-")}


@pytest.fixture(scope="module")
def example():
    contents = found()
    contents["grid"] = [each for each in contents["grid"] if each["site"] == "resid_post.2"]
    return contents


@pytest.fixture
def contents(example):
    """To be changed at will."""
    return deepcopy(example)


@pytest.fixture
def page(tmp_path):
    def make(contents) -> Page:
        (tmp_path / "discover.json").write_text(json.dumps(contents), encoding="utf-8")
        return Page(write_discovery_report(tmp_path).read_text(encoding="utf-8"))

    return make


def test_whole_page(page, contents):
    shown = page(contents)
    assert "Seven behaviours of tiny-rl at resid_post.2; 4 of 7 tested survive falsification" in shown.words
    for behaviour in contents["behaviours"]:
        for text in (behaviour["name"], *behaviour["examples"], *behaviour["card"]["reasons"], *behaviour["terms"]):
            assert text.strip() in shown.words
    for text in (contents["taxonomy"]["rule"], "Goes over a result", "only arithmetic", "12 answers were unusable"):
        assert text in shown.words
    names = ("cards", "timeline", "transitions", "usage", "map", "grid")
    assert shown.figures == {f"figure-{name}" for name in names}
    assert shown.words.count("backward chaining0.00") == 1
    assert shown.traces == ["".join(each["text"] for each in trace["sentences"]) for trace in contents["traces"]]
    assert shown.words.count("resid_post.2 · topk · 6") == 1


def test_page_stands_alone(page, contents, tmp_path, monkeypatch):
    monkeypatch.undo()
    shown = page(contents)
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert source.count("plotly.js v") == 1, "the plotting library once, and inlined"
    assert len(source) < 7_000_000
    for tag, attributes in shown.tags:
        assert not {"src", "srcset", "action"} & attributes.keys(), tag
        assert tag not in ("link", "iframe", "img", "base"), tag
        assert (attributes.get("href") or "#").startswith("#")


def test_every_link_leads_somewhere(page, contents):
    for each in (contents, {"schema": 1}):
        shown = page(each)
        ids = {attributes.get("id") for _, attributes in shown.tags}
        targets = {attributes["href"] for tag, attributes in shown.tags if tag == "a"}
        assert {f"#{name}" for name in ids} >= targets


def test_hostile_text_stays_text(page, contents):
    clean = page(contents)
    behaviour = contents["behaviours"][0]
    behaviour |= {key: HOSTILE for key in ("name", "description", "note", "true_type")}
    behaviour |= {"examples": [HOSTILE], "terms": [HOSTILE]}
    behaviour["card"]["reasons"] = [HOSTILE]
    behaviour["card"]["verdict"] = HOSTILE
    contents["taxonomy"] |= {"rule": HOSTILE, "site": HOSTILE, "family": HOSTILE}
    contents["judge"]["name"] = contents["counters"]["scheme"] = contents["counters"]["names"][0] = HOSTILE
    contents["problems"]["name"] = contents["model"] = HOSTILE
    contents["traces"][0] = {
        "problem_id": HOSTILE,
        "correct": True,
        "sentences": [{"text": HOSTILE, "behaviour": 0, "type": HOSTILE}],
    }
    contents["map"]["points"][0][3] = HOSTILE
    contents["grid"][0] |= {"site": HOSTILE, "family": HOSTILE}
    shown = page(contents)
    assert shown.count("script") == clean.count("script")
    # A verdict that is none of the three has no words of its own, and is bold once as the others are.
    assert shown.count("b") == clean.count("b")
    assert shown.words.count(HOSTILE) >= 12, "shown as it was written"
    assert shown.traces[0] == HOSTILE


def test_least_discovery(page):
    shown = page({"schema": 1})
    for empty in (
        "There are no behaviours",
        "no traces to show",
        "No transitions or shares",
        "no candidates to choose from",
    ):
        assert empty in shown.words
    assert shown.figures == set()
    assert "None" not in shown.words


def test_all_that_may_be_null(page, contents):
    contents |= dict.fromkeys(("judge", "counters", "map", "usage", "transitions", "problems"))
    contents["taxonomy"] = {"site": "resid_post.2", "n_behaviours": 7}
    contents["behaviours"] = [{"behaviour": i} for i in range(3)]
    contents["grid"] = [
        {"site": "a", "family": "topk", "size": 4} | dict.fromkeys(("seeds", "stability", "variance_explained", "ami"))
    ]
    shown = page(contents)
    assert "Seven behaviours of tiny-rl at resid_post.2; none was tested" in shown.words
    assert "behaviour 6" in shown.words
    assert shown.figures == {"figure-timeline", "figure-grid"}
    assert "None" not in shown.words
    assert "Only one seed was used" in shown.words


def test_parts_of_a_card_that_may_be_null(page, contents):
    for key in ("paraphrase", "stability", "content"):
        contents["behaviours"][0]["card"][key] = None
    contents["behaviours"][1]["card"] = {"verdict": "undecided", "reasons": [], "injection": {"n": 0, "rate": None}}
    contents["behaviours"][2]["card"] = {"verdict": None, "reasons": None}
    shown = page(contents)
    assert "no verdict" in shown.words
    assert "None" not in shown.words


def test_empty_traces(page, contents):
    contents["traces"] = [{"problem_id": "p", "correct": False, "sentences": []}]
    assert "There are no traces to show" in page(contents).words
    contents["traces"] += [{"problem_id": "q", "correct": None, "sentences": [{"text": "A.", "behaviour": None}]}]
    assert "figure-timeline" in page(contents).figures


def test_merged_behaviours_are_said_and_not_counted(page, contents):
    contents["behaviours"][6]["merged_into"] = 3
    shown = page(contents)
    assert "Six behaviours of tiny-rl" in shown.words
    assert "4 of 6" in shown.words
    assert "Merged into 3." in shown.words


def test_long_traces_are_cut_and_none_is_missing(page, contents, monkeypatch):
    monkeypatch.setattr("probe.reports.discovery.page._BUDGET", 2400)
    shown = page(contents)
    assert len(shown.traces) == 24 and all(shown.traces) and sum(map(len, shown.traces)) <= 2400
    assert "characters left out" in shown.words and "discover.json beside this page has the whole traces" in shown.words
    monkeypatch.setattr("probe.reports.discovery.page._MOST", 20)
    assert "4 more traces are in discover.json" in page(contents).words


def test_a_choice_that_passes_no_rule_is_said(contents):
    next(each for each in contents["grid"] if each["chosen"])["passes"] = False
    assert any("No candidate is as stable" in line for line in discovery_headline(contents)[1])


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (["state"] * 7, "7 of 7 tested survive falsification."),
        (["cue", *["state"] * 6], "6 of 7 tested survive falsification, 1 follows its cue words."),
        (["state", *["undecided"] * 6], "1 of 7 tested survives falsification."),
        (["undecided"] * 7, "0 of 7 tested survive falsification."),
    ],
)
def test_headline(contents, verdicts, said):
    for behaviour, verdict in zip(contents["behaviours"], verdicts, strict=True):
        behaviour["card"]["verdict"] = verdict
    assert discovery_headline(contents)[0].endswith(said)


def test_written_twice_is_the_same(tmp_path, contents):
    (tmp_path / "discover.json").write_text(json.dumps(contents), encoding="utf-8")
    first = write_discovery_report(tmp_path).read_bytes()
    assert write_discovery_report(tmp_path).read_bytes() == first


@pytest.mark.parametrize("contents", [None, {"schema": 2}, []])
def test_not_a_discovery(tmp_path, contents):
    if contents is not None:
        (tmp_path / "discover.json").write_text(json.dumps(contents), encoding="utf-8")
    with pytest.raises(ProbeError, match=r"discover\.json") as raised:
        write_discovery_report(tmp_path)
    assert "\n" not in str(raised.value)


def written(contents) -> str:
    console = Console(width=100, force_terminal=False)
    with console.capture() as captured:
        console.print(discovery_table(contents))
    return captured.get()


def test_table(contents):
    contents["behaviours"][0]["name"] = "[bold]x"
    contents["behaviours"][6] |= {"merged_into": 3}
    lines = written(contents).splitlines()
    assert next(line for line in lines if "[bold]x" in line).split() == [
        "0",
        "[bold]x",
        "7%",
        "0.98",
        "plan",
        "99%",
        "state",
    ]
    assert next(line for line in lines if "weather" in line).endswith("merged into 3")


def test_table_without_types_or_cards():
    assert "not tested" in written({"schema": 1, "taxonomy": {"n_behaviours": 2}})
    assert "true type" not in written({"schema": 1, "behaviours": [{"behaviour": 0}]})
