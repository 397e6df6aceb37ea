"""Pages, tables and figures of adapters and studies show what their files hold."""

import copy
import json

import pytest

from probe.reports import (
    adapter_card,
    study_figure,
    study_table,
    tuning_figure,
    verification_figure,
    write_adapter_report,
    write_study,
)
from tests.reports.test_compare import shown

HISTORY = [{"step": 0, "loss": 1.0}, {"step": 10, "loss": 0.25, "train": 0.5}]
COST = {"tokens": 12345.0, "flops": 2e12, "seconds": 61.0}
CARD = {
    "plan": {"rank": 8},
    "base": {"architecture": "LlamaForCausalLM"},
    "objective": {"name": "resa", "insert": "noise", "site": "resid_post.1"},
}


def of(value, low=None, high=None):
    return {"value": value, "ci": [value if low is None else low, value if high is None else high]}


FOUND = {
    "reach": {"0": 0.0, "1": 0.02},
    "site_changed": of(0.31),
    "moved": [7, 3],
    "claimed": [7],
    "effect": of(0.12, 0.1, 0.14),
    "necessity": {"claimed": of(0.61, 0.5, 0.7), "random": of(0.02, -0.1, 0.1)},
    "sufficiency": {"claimed": of(0.4), "random": of(0.0)},
    "alignment": {"claimed": 0.9, "random": 0.3},
    "damage": {"like": {"kl": of(0.1), "ce": of(0.017)}, "general": {"kl": of(0.1), "ce": of(-0.002)}},
    "insertion": {"sae": of(0.04), "sae and adapter": of(0.02), "adapter": of(0.12)},
    "behaviour": {"base": of(0.1), "adapter": of(1.03), "moved": of(0.93), "taken back, claimed": of(0.69, 0.55, 0.83)},
}
STUDY = {
    "model": "tiny-base",
    "seeds": [0, 1],
    "texts": {"train": 40, "like": 6, "general": 5},
    "problems": 10,
    "measures": {"deployed": "KL", "ce": "cross-entropy", "solved": "problems"},
    "sae": {"latents": 512, "site": "resid_post.1", "variance_explained": 0.97, "kl": 0.04},
    "rows": {
        "resa": {
            "measures": {"deployed": of(0.003), "ce": of(0.017, 0.012, 0.022), "solved": of(0.0)},
            "against": "resa:noise",
            "difference": {"deployed": of(0.0025), "ce": of(0.0134), "solved": of(0.0)},
        },
        "resa:noise": {"measures": {"deployed": of(0.0005), "ce": of(0.0036), "solved": of(0.0)}},
        "ce": {"measures": {"deployed": of(0.51), "ce": of(-0.337), "solved": of(0.88)}},
    },
}
TOLD = {"card": CARD, "history": HISTORY, "cost": COST, "found": FOUND}


def test_the_report_says_what_was_found(tmp_path):
    page = write_adapter_report(tmp_path / "report.html", **TOLD).read_text()
    for said in ("resa with noise in the SAE", "61.0% [50.0%, 70.0%]", "other texts", "69.0% [55.0%, 83.0%]", "12,345"):
        assert said in page
    assert "which it was not trained on</h2>" not in page.replace("On tiny-sft, ", "")
    foreign = {"model": "tiny-sft", "rows": copy.deepcopy(STUDY["rows"])}
    page = write_adapter_report(tmp_path / "report.html", **TOLD, foreign=foreign).read_text()
    assert "On tiny-sft, which it was not trained on" in page
    bare = write_adapter_report(tmp_path / "bare.html", **TOLD | {"found": None}).read_text()
    assert "Do these latents carry the effect?" not in bare and "1.0000 → 0.2500 at step 10" in bare


def test_an_adapter_that_does_nothing_has_no_shares(tmp_path):
    nothing = {"value": None, "ci": [None, None]}
    found = FOUND | {
        "moved": [],
        "necessity": {"claimed": nothing},
        "sufficiency": {"claimed": nothing},
        "behaviour": {},
    }
    assert "changes nothing" in verification_figure(found).layout.annotations[0].text
    assert "moves no latent" in write_adapter_report(tmp_path / "r.html", **TOLD | {"found": found}).read_text()


def test_values_without_an_interval_are_shown(tmp_path):
    """With one text there is a value and no interval."""

    def alone(found):
        if isinstance(found, dict):
            return {name: None if name == "ci" else alone(each) for name, each in found.items()}
        return found

    page = write_adapter_report(tmp_path / "r.html", **TOLD | {"found": alone(FOUND)}).read_text()
    assert "61.0%" in page and "[50.0%" not in page
    assert "88.0%" in write_study(alone(STUDY), tmp_path / "s.html").read_text()
    assert "−0.337" in shown(study_table(alone(STUDY))) and len(study_figure(alone(STUDY)).data) == 18


def test_figures_hold_every_value():
    assert [tuple(trace.y) for trace in tuning_figure(HISTORY).data] == [(1.0, 0.25), (0.5,)]
    figure = verification_figure(FOUND)
    dots = [trace for trace in figure.data if trace.mode == "markers" and trace.x[0] is not None]
    assert sorted(trace.x[0] for trace in dots) == [0.0, 0.02, 0.4, 0.61, 0.69]
    assert {trace.name for trace in figure.data if trace.name} == {"claimed latents", "random latents"}
    dots = [trace for trace in study_figure(STUDY).data if trace.mode == "markers"]
    assert len(dots) == 9 and {trace.x[0] for trace in dots} >= {0.88, -0.337}


def test_the_study_says_what_was_found(tmp_path):
    page = write_study(STUDY, tmp_path / "study.html").read_text()
    assert "−0.337" in page and "[0.012, 0.022]" in page and "88.0%" in page and "512 latents" in page
    assert "Differences from the noise control" in page and "0.013" in page
    said = shown(study_table(STUDY))
    assert "resa:noise" in said and "88.0%" in said


@pytest.mark.parametrize("found", [FOUND, None])
def test_the_card_is_one_that_hubs_read(found):
    import yaml

    card = adapter_card(base="org/base", **TOLD | {"found": found})
    _, head, body = card.split("---\n", 2)
    assert yaml.safe_load(head)["base_model"] == "org/base" and yaml.safe_load(head)["library_name"] == "peft"
    assert "`resa (noise)`" in body and ("| KL with the SAE inserted | 0.0400" in body) == (found is not None)


def test_a_verification_of_an_earlier_version_gives_the_same_page(tmp_path):
    """It has the key ``drawn`` where one of today has ``random``."""
    taken_back = {"taken back, random": of(0.01)}
    today = FOUND | {"behaviour": FOUND["behaviour"] | taken_back}
    earlier = json.loads(json.dumps(today).replace("random", "drawn"))
    assert earlier != today
    pages = [
        write_adapter_report(tmp_path / "r.html", **TOLD | {"found": found}).read_text() for found in (earlier, today)
    ]
    assert pages[0] == pages[1]
    assert verification_figure(earlier) == verification_figure(today)
