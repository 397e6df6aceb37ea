"""The page of a run, read as a browser would: nothing of a run may become markup, and nothing may be missing."""

import json
from html.parser import HTMLParser
from typing import Any

import pytest

from probe.errors import ProbeError
from probe.reports import write_report
from probe.reports.run.shown import compact

N = 300
HOSTILE = "</script><script>alert(1)</script><b>bold</b> & {{ 7 * 7 }} 'q' \"Q\" [bold]"


class Page(HTMLParser):
    """What a browser would see: the text outside scripts, the tags, and the data of the traces."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(source)
        self.data = json.loads(
            next(s for s, (_, a) in zip(self.scripts, self._script_tags(), strict=True) if a.get("id") == "data")
        )

    def _script_tags(self) -> list[tuple[str, dict[str, str | None]]]:
        return [tag for tag in self.tags if tag[0] == "script"]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        elif self.cdata_elem is None:
            self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


@pytest.fixture
def page(write_run):
    def make(contents: dict[str, Any]) -> Page:
        return Page(write_report(write_run(contents)).read_text(encoding="utf-8"))

    return make


def test_whole_page(page, contents):
    found = page(contents)
    assert "Steering the base model recovers 81% [75, 87] of the gap" in found.words
    assert "random controls recover at most 20%" in found.words
    for name in contents["results"]["arms"]:
        assert name in found.words
    for behaviour in contents["behaviours"]:
        assert behaviour["label"] in found.words
        assert all(example.strip() in found.words for example in behaviour["examples"])
    assert found.words.count("seed 1") == 1
    assert "bits per steered token 5.16" in found.words
    assert "resid_post.1" in found.words, "settings"


def test_page_stands_alone(page, contents, monkeypatch):
    monkeypatch.undo()
    found = page(contents)
    for tag, attributes in found.tags:
        assert not {"src", "srcset", "action"} & attributes.keys(), tag
        assert tag not in ("link", "iframe", "img", "base"), tag
        assert (attributes.get("href") or "#").startswith("#")
    assert found.source.count("plotly.js v") == 1, "the plotting library once, and inlined"
    assert len(found.source.encode()) < 7_000_000


def test_traces_say_what_happened(page, contents):
    shown = contents["shown"][0]["arms"]
    arms = {arm["name"]: arm for arm in page(contents).data["problems"][0]["arms"]}
    assert list(arms) == ["base", "thinking", "hybrid", "single-vector", *list(contents["results"]["arms"])[4:]]
    assert arms["base"] == {"name": "base", **shown["base"]}
    for token, whole in zip(arms["hybrid"]["tokens"], shown["hybrid"]["tokens"], strict=True):
        plain = not whole["steered"] and whole["base"] == whole["thinking"] == whole["text"]
        assert token == (whole["text"] if plain else list(whole.values()))


def test_hostile_text_stays_text(page, contents):
    clean = page(contents)
    results, behaviour, problem = contents["results"], contents["behaviours"][0], contents["shown"][0]
    results["pair"] = results["problems"]["name"] = results["taxonomy"]["site"] = HOSTILE
    results["settings"]["prompt"] = HOSTILE
    results["arms"][HOSTILE] = results["arms"]["hybrid"]
    results["gap_recovered"][HOSTILE] = results["gap_recovered"]["hybrid"]
    behaviour |= {"label": HOSTILE, "true_type": HOSTILE, "examples": [HOSTILE]}
    problem |= {"question": HOSTILE, "answer": HOSTILE, "problem_id": HOSTILE}
    problem["arms"]["base"]["text"] = HOSTILE
    problem["arms"]["hybrid"]["tokens"][0] |= {"text": HOSTILE, "base": HOSTILE, "thinking": HOSTILE, "steered": True}

    found = page(contents)
    assert found.count("script") == clean.count("script")
    assert found.count("b") == clean.count("b")
    assert found.words.count(HOSTILE) >= 6, "shown as it was written"
    assert "49" not in found.data["problems"][0]["question"]
    assert found.data["problems"][0]["question"] == HOSTILE
    assert found.data["problems"][0]["arms"][0]["text"] == HOSTILE
    hybrid = next(arm for arm in found.data["problems"][0]["arms"] if arm["name"] == "hybrid")
    assert hybrid["tokens"][0][0] == HOSTILE
    assert not any("<b>bold" in script for script in found.scripts if "Plotly.newPlot" in script)


def test_no_gap_is_said(page, contents):
    results = contents["results"]
    results["gap_recovered"] = {name: {"value": None, "ci": None} for name in results["gap_recovered"]}
    results["seeds"] |= {"mean": None, "sd": None}
    for seed in results["seeds"]["hybrid"]:
        seed["gap_recovered"] = {"value": None, "ci": None}
    found = page(contents)
    assert "No gap:" in found.words
    assert "recovers" not in found.words.split("Arms", maxsplit=1)[0], "nothing is claimed"
    assert found.words.count("no gap") >= len(results["gap_recovered"]), "in every row of the table"


def test_missing_arms(page, contents):
    results = contents["results"]
    for name in ("thinking", "random-category", "random-vectors", "random-positions"):
        del results["arms"][name]
        results["gap_recovered"].pop(name, None)
    assert "no random control was run" in page(contents).words


def test_least_run(page):
    found = page({"results": {"schema": 1}, "shown": []})
    for empty in ("No arm was run", "has no behaviours", "has no traces", "no oracle accounting"):
        assert empty in found.words
    assert found.data["problems"] == []


def test_null_sections(page, contents):
    results = contents["results"]
    results |= {
        "oracle": None,
        "taxonomy": {"site": "resid_post.2", "k": 8, "variance_explained": None, "stability": None, "ami": None},
    }
    results["arms"]["hybrid"] |= {"ci": None, "steered_fraction": None, "seconds": None}
    contents["behaviours"][0] = {"behaviour": 0}
    assert (
        "The share of the variance explained is not known, stability across seeds was not measured"
        in page(contents).words
    )


def test_nothing_steered_and_nothing_graded(page, contents):
    """The hybrid never opened its gate; of one control no answer could be graded."""
    results = contents["results"]
    results["arms"]["hybrid"]["steered_fraction"] = 0.0
    results["oracle"] |= {"bits_per_token": 0.0, "bits_per_steered_token": 0.0}
    results["arms"]["random-vectors"] |= {"accuracy": None, "ci": None, "n": 0, "ungraded": N, "seconds": None}
    results["gap_recovered"]["random-vectors"] = {"value": None, "ci": None}
    for behaviour in contents["behaviours"]:
        behaviour |= {"mean_strength": None, "gates": 0}
    for problem in contents["shown"]:
        problem["arms"]["random-vectors"]["correct"] = None
        for token in problem["arms"]["hybrid"]["tokens"]:
            token |= {"steered": False, "behaviour": None, "strength": None}
    found = page(contents)
    assert "bits per steered token 0.00" in found.words
    arms = {arm["name"]: arm for arm in found.data["problems"][0]["arms"]}
    assert arms["random-vectors"]["correct"] is None, "neither right nor wrong"
    assert "random-vectors" in found.words
    assert "random-vectors" not in found.words.split("Arms", maxsplit=1)[0], "it is compared with no one"


def test_what_is_left_out_is_said(page, contents, monkeypatch):
    monkeypatch.setattr("probe.reports.run.page.compact", lambda shown: compact(shown, budget=20_000))
    found = page(contents)
    kept = len(found.data["problems"])
    assert 0 < kept < 12
    assert f"{12 - kept} more problems are in shown.json" in found.words


def test_written_twice_is_the_same(write_run, contents):
    first = write_report(write_run(contents)).read_bytes()
    assert write_report(write_run(contents)).read_bytes() == first


@pytest.mark.parametrize("results", [None, {"schema": 2}, [], {"heads": []}])
def test_not_a_run(tmp_path, write_run, results):
    if results is not None:
        write_run({"results": results})
    with pytest.raises(ProbeError, match=r"results\.json") as raised:
        write_report(tmp_path)
    assert "\n" not in str(raised.value)


def test_the_look_and_the_warning_are_shown_as_text(page, contents):
    clean = page(contents).count("script"), page(contents).count("b")
    answer = {"answer": HOSTILE, "correct": False, "end": HOSTILE}
    told = {"name": "m", "sampling": HOSTILE, "accuracy": 0.5, "ci": [0.2, 0.8], "n": 30, "no_answer": 0.1}
    told |= {"truncated": 0.2, "looping": 0.1, "repetition": None, "tokens_per_answer": 90.0}
    contents["results"]["cut"] = f"the limit of 9 tokens cut 20% of the answers of {HOSTILE}"
    contents["results"]["look"] = {
        "pair": "p",
        "problems": {"name": "story", "split": "validation", "n": 30},
        "max_new_tokens": 9,
        "models": {"base": told, "thinking": told},
        "difference": {"value": None, "ci": None},
        "verdicts": [{"name": "x", "model": None, "stops": True, "finding": HOSTILE, "remedy": HOSTILE}],
        "shown": [{"problem_id": HOSTILE, "answer": HOSTILE, "base": answer, "thinking": {**answer, "answer": None}}],
    }
    found = page(contents)
    assert (found.count("script"), found.count("b")) == clean
    assert "The limit of 9 tokens cut 20%" in found.words and "✗ no answer" in found.words
    assert found.words.count(HOSTILE) >= 5
