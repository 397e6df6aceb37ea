"""Words of a behaviour are looked for before its sentences; labels that mean nothing give no difference."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from probe.circuits import JacobianLens, concept_entry
from probe.circuits.lenses.entry import _compared
from probe.circuits.lenses.jacobian import weights_of
from probe.circuits.lenses.starts import sentence_starts
from probe.errors import NotApplicable, ProbeError
from probe.models import load_model
from probe.problems import load_problems
from probe.reports import entry_figure
from probe.taxonomy import Behaviour
from probe.traces import generate_traces


@pytest.fixture(scope="module")
def solved():
    model, problems = load_model("bundled:tiny-rl", device="cpu"), load_problems("story")
    some = problems.take("test", 10)
    return model, problems, some, generate_traces(model, problems, some, max_new_tokens=120)


def test_a_behaviour_is_readable_where_the_model_chooses_it(solved):
    model, problems, some, traces = solved
    check = Behaviour.of_type(problems, "check")
    same = JacobianLens({i: torch.eye(model.d_model) for i in range(3)}, "x", 4, weights=weights_of(model))
    found = concept_entry([model, model], traces, some, check, lenses=[same, same], back=2)
    plain = concept_entry([model], traces, some, check, back=2)
    torch.testing.assert_close(found.difference[0], plain.difference[0], atol=1e-4, rtol=1e-4)
    assert plain.words[0] == (" Is", " Check") or set(plain.words[0]) <= {" Is", " Check"}
    assert plain.difference[0][3, 0] > 3 and plain.p[0][3, 0] <= 0.05 and plain.traces == 5
    # By hand, for one trace and block.
    starts = sentence_starts(model, traces, some, check)
    gains = []
    for text in starts.measured:
        with torch.no_grad():
            log_p = model.hf(torch.tensor([text.ids])).logits[0].log_softmax(-1)
        score = log_p[[at - 1 for at in text.places]][:, starts.tokens()].logsumexp(-1)
        shows = torch.tensor(text.shows)
        gains.append(score[shows].mean() - score[~shows].mean())
    torch.testing.assert_close(plain.difference[0][3, 0], torch.stack(gains).mean(), atol=1e-3, rtol=1e-3)
    assert "check" in found._repr_html_() and len(found.rows()) == 2 * 4 * 2
    drawn: Any = entry_figure(found).data[0]
    assert len(drawn.z) == 4
    wide = concept_entry([model], traces, some, check, back=21)
    cells = entry_figure(wide).data[0]
    assert cells.text[3][0] == "★" and "★" in cells.customdata[3][0], "stars are there without room for numbers"


def test_shuffled_labels_show_nothing():
    generator = torch.Generator().manual_seed(1)
    group, shows = torch.arange(12).repeat_interleave(6), torch.tensor([True, False, True, False, True, False] * 12)
    scores = torch.randn(72, 3, 2, generator=generator)
    assert _compared(scores, shows, group, 0)[3].min() > 0.05
    scores[shows, 1, 0] += 1.5
    difference, low, high, p = _compared(scores, shows, group, 0)
    assert (p <= 0.05).tolist() == [[False, False], [True, False], [False, False]]
    assert low[1, 0] < difference[1, 0] < high[1, 0] and low[1, 0] > 0.5
    scores[7, 2, 1], scores[8, 0, 0] = torch.nan, -torch.inf
    p = _compared(scores, shows, group, 0)[3]
    assert p.isnan().tolist() == [[True, False], [False, False], [False, True]] and p[1, 0] <= 0.05 < p[0, 1]


def test_what_cannot_be_compared_is_refused(solved):
    model, problems, some, traces = solved
    check = Behaviour.of_type(problems, "check")
    with pytest.raises(ProbeError, match="one lens for each"):
        concept_entry([model], traces, some, check, lenses=[])
    with pytest.raises(NotApplicable, match="too few traces"):
        concept_entry([model], traces[:1], some[:1], check)
    with pytest.raises(ProbeError, match="no sentence"):
        concept_entry([model], traces, some, replace(check, mark=lambda t: [[False] * len(x.sentences) for x in t]))
