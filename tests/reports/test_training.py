"""What has not converged is marked wherever its figures stand, and the learning curve shows every point."""

import io

import pytest
from rich.console import Console

from probe.reports import arms_table, curve_table, write_report
from probe.reports.run.training import convergence_sentences, curve_figure, training_figure

CHECKS = [{"step": 0, "loss": 3.0}, {"step": 25, "loss": 0.5, "train": 0.9}]


def trained(**converged):
    return {
        "parts": {part: {"converged": done, "steps": 40, "checks": CHECKS} for part, done in converged.items()},
        "arms": {},
    }


def printed(table):
    console = Console(file=io.StringIO(), width=100)
    console.print(table)
    return console.file.getvalue()


def test_nothing_is_marked_where_all_has_converged(contents, write_run):
    results = contents["results"]
    results["training"] = trained(vectors=True)
    assert convergence_sentences(results) == []
    assert "converged" not in printed(arms_table(results))
    page = write_report(write_run(contents)).read_text()
    assert "have not converged" not in page and "<abbr" not in page


@pytest.mark.parametrize("arm", ["hybrid", "rerank-only"])
def test_what_has_not_converged_is_marked_in_table_headline_and_page(arm, contents, write_run):
    results = contents["results"]
    results["arms"][arm]["not_converged"] = ["vectors, seed 0"]
    results["training"] = trained(**{"vectors, seed 0": False, "lora": True})
    (sentence,) = convergence_sentences(results)
    assert "vectors, seed 0 (40 steps)" in sentence and f"({arm})" in sentence and "lora" not in sentence
    assert f"{arm} *" in printed(arms_table(results)) and "not converged" in printed(arms_table(results))
    page = write_report(write_run(contents)).read_text()
    assert ("vectors have not converged." in page) == (arm == "hybrid")
    assert page.count("<abbr") == 1


def test_loss_curves_hold_every_evaluation():
    results = {"training": trained(vectors=True, policy=False)}
    figure = training_figure(results)
    assert [list(line.y) for line in figure.data] == [[0.9], [3.0, 0.5]] * 2
    assert [title.text for title in figure.layout.annotations[:2]] == ["vectors", "policy *"]
    assert training_figure({}).layout.annotations[0].text == "nothing was trained"


def test_a_learning_curve_shows_every_arm_at_every_number_of_traces(contents, write_run):
    def arm(value, parts=()):
        gap = {"value": value, "ci": [value - 0.1, value + 0.1]}
        return {"accuracy": value, "gap_recovered": gap, "not_converged": list(parts)}

    results = contents["results"]
    results["curve"] = [
        {"traces": 60, "arms": {"hybrid": arm(0.5, ["vectors"]), "lora": arm(0.7)}},
        {"traces": 150, "arms": {"hybrid": arm(0.9), "lora": arm(0.8)}},
    ]
    lines = {line.name: (list(line.x), list(line.y)) for line in curve_figure(results).data}
    assert lines == {"hybrid": ([60, 150], [0.5, 0.9]), "lora": ([60, 150], [0.7, 0.8])}
    assert "50 % [40, 60] *" in printed(curve_table(results)).replace("%", " %").replace("  %", " %")
    page = write_report(write_run(contents)).read_text()
    assert "Learning curve" in page or "learned again from fewer" in page
    assert curve_figure({}).layout.annotations[0].text == "no learning curve was measured"
