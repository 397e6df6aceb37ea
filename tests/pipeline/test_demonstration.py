"""The demo on both bundled pairs."""

import json

import pytest

from probe.pipeline import RunConfig, run_demo
from probe.reports import demo_findings, demo_next

FEW = {
    "sizes": {"limit": 16},
    "taxonomy": {"sizes": [4], "steps": 50, "seeds": [0]},
    "steering": {"steps": 10, "seeds": [0]},
    "decoding": {"max_new_tokens": 200},
    "hybrid": {"arms": ["force-token"]},
}


def test_its_recipe_has_the_arms_that_carry_the_argument():
    config = RunConfig.of_recipe("quick", pair="tiny-rl")
    assert {"hybrid", "oracle-free", "single-vector", "rerank-only", "force-token"} <= {*config.hybrid.names}
    assert len([name for name in config.hybrid.names if name.startswith("random-")]) == 3
    assert len(config.steering.seeds) == 3
    own = RunConfig.of_recipe("quick", pair="tiny-rl", problems="story", sizes={"test": 20})
    assert (own.sizes.train, own.sizes.test) == (150, 20), "its numbers hold for any problems"


@pytest.mark.slow
def test_both_pairs_run_at_once_and_what_was_found_is_told_as_it_comes(tmp_path, capfd):
    results = run_demo(tmp_path, settings=FEW, progress=True)
    told = capfd.readouterr().err
    for pair, found in results.items():
        assert json.loads((tmp_path / pair / "results.json").read_text()) == found
        assert (tmp_path / pair / "report.html").exists()
        assert set(found["arms"]) == {"base", "thinking", "hybrid", "force-token"}
        for sentence in ("base solves ", "behaviours in", "hybrid solves ", "force-token solves "):
            assert f"{pair:<8}  {sentence}" in told or sentence in told.split(pair, 1)[1]
    assert all(len(line) <= 80 for line in told.splitlines())
    assert told.index("tiny-sft") < told.rindex("tiny-rl"), "they run at the same time"
    for found in results.values():
        assert found["gap_recovered"]["force-token"]["value"] == 1

    again = run_demo(tmp_path, settings=FEW)
    assert again == results
    assert capfd.readouterr().err == ""

    findings = demo_findings(results)
    assert [finding.split(":")[0] for finding in findings] == ["tiny-rl", "tiny-sft"]
    assert str(tmp_path / "tiny-sft" / "report.html") in demo_next(tmp_path, results)
