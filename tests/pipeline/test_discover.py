"""A whole small discovery on a bundled model: its result file, edits by hand, a judge, and every kind of failure."""

import importlib
import json
import re
import shutil
from itertools import count

import pytest

from probe.config import from_dict
from probe.errors import ProbeError
from probe.models import ModelConfig, load_model
from probe.pipeline import DiscoverConfig, discover
from probe.reports import discovery_table
from probe.taxonomy import ScriptedJudge, Taxonomy
from probe.traces import Traces, make_trace

# The package names the function of the same name.
MODULE = importlib.import_module("probe.pipeline.discover.discover")

SMALL = {
    "pair": "tiny-rl",
    "device": "cpu",
    "shown": 3,
    "sizes": {"train": 12, "validation": 8},
    "decoding": {"batch_size": 4, "max_new_tokens": 60},
    "taxonomy": {"sites": ["resid_post.2"], "sizes": [4], "seeds": [0, 1], "steps": 20, "rivals": ["pca-kmeans"]},
    "falsify": {"sentences": 3, "prefixes": 1, "samples": 2, "new_tokens": 12},
}
EXPENSIVE = ("fit_taxonomy", "falsify", "write_neuronpedia")
JUDGE = {
    "judge": {"model": "scripted", "url": "http://localhost:9/v1", "sample": 5},
    "falsify": {"sentences": 1, "prefixes": 0},
}


def settings(**more):
    """The small settings, with the given sections merged into them."""
    merged = {
        name: {**old, **more.get(name, {})} if isinstance(old, dict) else more.get(name, old)
        for name, old in SMALL.items()
    }
    return merged | {name: value for name, value in more.items() if name not in SMALL}


def config(**more):
    return from_dict(DiscoverConfig, settings(**more))


def thinking(model, **more):
    """Settings for a model of your own."""
    return config(
        pair=None, thinking={"path": str(model), "prompt": "Question: {question}\n"}, problems="story", **more
    )


def contents(folder):
    """Every file below a folder."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def forbid_work(monkeypatch):
    """Fail if a model runs or an expensive stage is called; traces are read by the function that makes them."""
    monkeypatch.setattr("probe.hooks.decoding.runner.Runner.prefill", lambda _: pytest.fail("a model ran"))
    monkeypatch.setattr("probe.pipeline.stages.harvest", lambda *_, **__: pytest.fail("harvest was called"))
    for name in EXPENSIVE:
        monkeypatch.setattr(MODULE, name, lambda *_, name=name, **__: pytest.fail(f"{name} was called"))


def script(monkeypatch, answer):
    """Use a function as the judge, and return the list that collects its prompts."""
    asked = []

    def noted(prompt):
        asked.append(prompt)
        return answer(prompt)

    monkeypatch.setattr(MODULE, "EndpointJudge", lambda *_, **__: ScriptedJudge(noted))
    return asked


def sensible(prompt):
    if "Title: <" in prompt:
        return f"Title: Kind {len(prompt)}\nDescription: Sentences of the kind {len(prompt)}."
    return "yes" if "yes or no" in prompt else "4"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A discovery that was never interrupted."""
    out = tmp_path_factory.mktemp("discoveries") / "whole"
    return out, discover(config(), out)


@pytest.fixture
def pageless(monkeypatch):
    """Write no page, which is half of the time of a small discovery whose stages are finished."""
    monkeypatch.setattr(MODULE, "write_discovery_report", lambda _: None)


@pytest.fixture
def copied(whole, tmp_path):
    """A copy of the discovery that a test may change."""
    return shutil.copytree(whole[0], tmp_path / "copy")


def test_result_file_keeps_its_contract(whole):
    out, found = whole
    stored = json.loads((out / "discover.json").read_text())
    assert stored == json.loads(json.dumps(found))
    assert set(stored) == {
        *("schema", "model", "problems", "seed", "taxonomy", "grid", "behaviours", "usage", "transitions", "traces"),
        *("map", "falsify", "counters", "judge", "prompts", "cut"),
    }
    assert (stored["schema"], stored["model"], stored["seed"], stored["judge"]) == (1, "tiny-rl", 0, None)
    assert stored["problems"] == {"name": "story", "train": 12, "validation": 8, "note": ""} | {
        "accuracy": stored["problems"]["accuracy"]
    }
    taxonomy = stored["taxonomy"]
    assert (taxonomy["site"], taxonomy["family"], taxonomy["n_behaviours"]) == ("resid_post.2", "topk", 4)
    assert {"rule", "score", "variance_explained", "stability", "agreement", "silhouette", "ami"} <= set(taxonomy)
    assert {(each["family"], each["size"]) for each in stored["grid"]} == {("topk", 4), ("pca-kmeans", 4)}
    assert [each["chosen"] for each in stored["grid"]].count(True) == 1
    assert [each["behaviour"] for each in stored["behaviours"]] == [0, 1, 2, 3]
    for each in stored["behaviours"]:
        assert each["name"] == each["label"] and each["merged_into"] is None
        assert {"description", "note", "true_type", "examples", "terms", "centroid_f1"} <= set(each)
        assert {"verdict", "reasons", "injection", "removal", "paraphrase", "content", "stability"} == set(each["card"])
    assert sum(each["share"] for each in stored["behaviours"]) == pytest.approx(1)
    assert sum(stored["falsify"]["verdicts"].values()) == 4
    assert stored["counters"]["scheme"] == "story"
    assert len(stored["traces"]) == 3


def test_counts_agree_with_each_other(whole):
    """Transitions, starts and the map count the same sentences."""
    _, found = whole
    points = found["map"]["points"]
    pairs = sum(map(sum, found["transitions"]["counts"]))
    assert len(points) == pairs + sum(found["transitions"]["start"])
    assert sum(found["transitions"]["start"]) == sum(found["transitions"]["end"]) <= 8
    for k, each in enumerate(found["behaviours"]):
        assert each["share"] == pytest.approx([at for *_, at, _ in points].count(k) / len(points))


def test_the_page_stands_alone(whole):
    page = (whole[0] / "report.html").read_text()
    assert "resid_post.2" in page
    assert not re.search(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)\s*=", page)


def test_the_taxonomy_is_a_folder_that_others_read(whole):
    from sae_lens import SAE

    out, found = whole
    taxonomy = Taxonomy.load(out / "taxonomy")
    assert taxonomy.labels == [each["label"] for each in found["behaviours"]]
    sae = SAE.load_from_disk(str(out / "taxonomy"), device="cpu")
    assert (sae.cfg.d_sae, sae.cfg.metadata.hook_name) == (4, "blocks.2.hook_resid_post")


def test_neuronpedia_files(whole):
    records = {
        kind: [json.loads(line) for line in (whole[0] / "neuronpedia" / f"{kind}.jsonl").read_text().splitlines()]
        for kind in ("features", "activations", "explanations")
    }
    assert [each["index"] for each in records["features"]] == ["0", "1", "2", "3"]
    assert [each["description"] for each in records["explanations"]] == [
        each["name"] for each in whole[1]["behaviours"]
    ]
    assert records["activations"]


def test_the_same_again_elsewhere_finds_the_same(whole, tmp_path):
    assert discover(config(), tmp_path / "again") == whole[1]
    assert (tmp_path / "again" / "discover.json").read_bytes() == (whole[0] / "discover.json").read_bytes()


def test_the_same_again_does_nothing_and_says_the_same(whole, monkeypatch):
    out, found = whole
    forbid_work(monkeypatch)
    before = contents(out)
    assert discover(config(), out) == found
    assert contents(out) == before


@pytest.mark.parametrize(
    "lost",
    [
        "cards/behaviour-001",
        *(
            pytest.param(path, marks=pytest.mark.slow)
            for path in ("traces/train/00000.json", "activations/train", "taxonomy", "taxonomy/grid")
        ),
    ],
)
@pytest.mark.usefixtures("pageless")
def test_what_is_missing_is_made_again_the_same(whole, copied, lost):
    for path in (copied / lost, copied / lost.split("/")[0] / "manifest.json", copied / "discover.json"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    assert discover(config(), copied) == whole[1]


def test_other_settings_are_refused_and_named(whole):
    out, _ = whole
    before = contents(out)
    with pytest.raises(
        ProbeError, match=r"taxonomy was made with other settings \(taxonomy\.steps: 20 there, 21 now\)"
    ):
        discover(config(taxonomy={"steps": 21}), out)
    assert contents(out) == before


@pytest.mark.usefixtures("pageless")
def test_settings_of_what_is_not_done_may_change(whole, copied):
    """If a size needs more sentences than there are, it can be corrected without losing the traces."""
    for name in ("taxonomy", "cards", "neuronpedia"):
        shutil.rmtree(copied / name)
    kept = contents(copied / "traces")
    with pytest.raises(ProbeError, match="training sentences are too few for a taxonomy of 5000"):
        discover(config(taxonomy={"sizes": [5000]}), copied)
    assert discover(config(), copied) == whole[1]
    assert contents(copied / "traces") == kept


def test_what_people_write_is_shown(whole, copied, monkeypatch):
    (copied / "taxonomy" / "behaviours.yaml").write_text("0: {name: opens, note: mine}\n1: {merge_into: 0}\n")
    discover(config(), copied)
    assert "opens" in (copied / "neuronpedia" / "explanations.jsonl").read_text()
    forbid_work(monkeypatch)
    found = discover(config(), copied)
    first, second, *others = found["behaviours"]
    was = whole[1]["behaviours"]
    assert (first["name"], first["note"], first["label"]) == ("opens", "mine", was[0]["label"])
    assert first["share"] == pytest.approx(was[0]["share"] + was[1]["share"])
    assert (second["merged_into"], second["share"]) == (0, 0)
    assert others == was[2:]
    assert sum(found["transitions"]["counts"][1]) == found["usage"]["all"]["share"][1] == 0
    assert "opens" in (copied / "report.html").read_text()
    assert json.loads((copied / "discover.json").read_text()) == json.loads(json.dumps(found))


@pytest.mark.usefixtures("pageless")
@pytest.mark.parametrize("wrong", ["0: {name: [", "9: {name: x}", "0: {nam: x}", "0: {merge_into: 0}", "- a"])
def test_edits_that_make_no_sense_lose_nothing(whole, copied, wrong):
    path = copied / "taxonomy" / "behaviours.yaml"
    right = path.read_bytes()
    path.write_text(wrong)
    before = contents(copied)
    with pytest.raises(ProbeError, match=re.escape(str(path))):
        discover(config(), copied)
    assert contents(copied) == before
    path.write_bytes(right)
    assert discover(config(), copied) == whole[1]


@pytest.mark.usefixtures("pageless")
def test_edits_count_even_while_the_taxonomy_is_unfinished(copied):
    """They may be written between an interrupted call and the next."""
    (copied / "taxonomy" / "manifest.json").unlink()
    (copied / "taxonomy" / "behaviours.yaml").write_text("0: {name: opens}")
    assert discover(config(), copied)["behaviours"][0]["name"] == "opens"


@pytest.mark.usefixtures("pageless")
def test_a_judge_names_and_scores(monkeypatch, tmp_path):
    asked = script(monkeypatch, sensible)
    out = tmp_path / "judged"
    found = discover(config(**JUDGE), out)
    for each in found["behaviours"]:
        assert re.fullmatch(r"Kind \d+", each["name"])
        assert each["description"] == f"Sentences of the kind {each['name'].split()[1]}."
        assert each["name"] != each["label"]
    judged = found["judge"]
    assert (judged["name"], judged["failed"], judged["independence"]) == ("scripted", 0, 1)
    assert judged["completeness"] == pytest.approx(0.4)
    assert judged["asked"] > 0 and found["taxonomy"]["names_failed"] == 0
    assert any(f"Kind of step: {found['behaviours'][0]['name']}" in prompt for prompt in asked)
    assert Taxonomy.load(out / "taxonomy").names == [each["name"] for each in found["behaviours"]]
    asked.clear()
    assert discover(config(**JUDGE), out) == found
    assert not asked, "every answer was kept"


@pytest.mark.usefixtures("pageless")
@pytest.mark.parametrize(
    "answer", ["The wind, perhaps?", *(pytest.param(each, marks=pytest.mark.slow) for each in ("", None))]
)
def test_a_judge_that_answers_nonsense_harms_nothing(whole, monkeypatch, tmp_path, answer):
    script(monkeypatch, lambda _: answer)
    found = discover(config(**JUDGE), tmp_path / "nonsense")
    for each, plain in zip(found["behaviours"], whole[1]["behaviours"], strict=True):
        assert {**each, "card": None} == {**plain, "card": None}, "words of its own stand for the name"
    assert found["taxonomy"]["names_failed"] == 4
    assert found["judge"]["failed"] == found["judge"]["asked"] > 0
    assert found["judge"]["score"] is found["judge"]["consistency"] is found["judge"]["completeness"] is None


@pytest.mark.slow
@pytest.mark.usefixtures("pageless")
@pytest.mark.parametrize(("good", "reused"), [(2, 0), (30, 4)])
def test_a_judge_that_fails_halfway_loses_nothing(monkeypatch, tmp_path, good, reused):
    """It fails while it names the four behaviours, or while it scores the names; answers are kept in batches."""
    out, number = tmp_path / "halfway", count()

    def until(prompt):
        # The first prompt asks whether it is there at all.
        if next(number) > good:
            raise ProbeError("the server is gone; start it again")
        return sensible(prompt)

    script(monkeypatch, until)
    with pytest.raises(ProbeError, match="the server is gone"):
        discover(config(**JUDGE), out)
    kept, grid = contents(out / "traces") | contents(out / "activations"), contents(out / "taxonomy" / "grid")
    answers = out / "judge" / "answers.jsonl"
    assert len(answers.read_text().splitlines() if answers.exists() else ()) == reused
    monkeypatch.setattr("probe.pipeline.stages.harvest", lambda *_, **__: pytest.fail("harvested again"))
    monkeypatch.setattr("probe.taxonomy.search.search.train_saes", lambda *_, **__: pytest.fail("fitted again"))
    again = script(monkeypatch, sensible)
    found = discover(config(**JUDGE), out)
    assert contents(out / "traces") | contents(out / "activations") == kept
    assert contents(out / "taxonomy" / "grid") == grid
    assert (found["judge"]["failed"], found["taxonomy"]["names_failed"]) == (0, 0)
    assert len(again) == len(set(again)) == 4 - reused + found["judge"]["asked"]


def test_a_judge_that_is_not_there_is_found_out_before_any_work(monkeypatch, tmp_path):
    forbid_work(monkeypatch)
    monkeypatch.setattr("probe.servers.client.time.sleep", lambda _: None)
    judge = {"model": "any", "url": "http://127.0.0.1:9/v1"}
    with pytest.raises(ProbeError, match=r"nothing answers at http://127\.0\.0\.1:9/v1 "):
        discover(config(judge=judge), tmp_path / "closed")
    assert not (tmp_path / "closed").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"pair": None}, "name one model"),
        ({"thinking": {"path": "bundled:tiny-rl"}}, "name one model"),
        ({"pair": "tiny-lr"}, "unknown pair 'tiny-lr'; did you mean 'tiny-rl'"),
        ({"pair": None, "thinking": {"path": "bundled:tiny-rl"}}, "no problems given"),
        ({"problems": "gsm9k"}, "unknown problem set 'gsm9k'"),
        ({"sizes": {"validation": 0}}, r"sizes\.validation is 0"),
        ({"device": "cuda:7"}, "there is no device"),
        ({"taxonomy": {"rivals": ["kmean"]}}, r"unknown family 'kmean' in taxonomy\.rivals"),
        ({"taxonomy": {"sizes": [1]}}, r"taxonomy\.sizes has 1"),
        ({"taxonomy": {"sites": ["resid_post.9"]}}, r"no site resid_post\.9; it has layers 0 to 3"),
        ({"taxonomy": {"sites": ["q.1", "q.1"]}}, r"names a site twice: q\.1, q\.1"),
        ({"taxonomy": {"sites": ["pattern.1"]}}, r"pattern\.1, which has no vector for each token"),
        ({"taxonomy": {"sites": ["model.layers.2.mlp"]}}, r"no hook for the module model\.layers\.2\.mlp"),
        ({"falsify": {"samples": 0}}, r"falsify\.samples is 0"),
        ({"judge": {"model": "a", "sample": 4}}, r"judge\.sample is 4; it must be at least 5"),
        ({"judge": {"model": "bundled:tiny-rl"}}, "no chat template"),
        ({"judge": {"model": "a", "url": "localhost:80"}}, "judge.url is 'localhost:80'; give an http address"),
        ({"shown": -1}, "shown is -1"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(monkeypatch, tmp_path, changed, said):
    forbid_work(monkeypatch)
    with pytest.raises(ProbeError, match=said):
        discover(config(**changed), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("pageless")
@pytest.mark.parametrize("site", ["embed", "q.1"])
def test_any_site_with_a_vector_for_each_token_will_do(tmp_path, site):
    found = discover(config(taxonomy={"sites": [site], "rivals": []}), tmp_path)
    assert found["taxonomy"]["site"] == site
    assert not (tmp_path / "neuronpedia").exists(), "the unembedding reads the residual stream only"


def test_fewer_sentences_than_behaviours_are_said_before_training(monkeypatch, tmp_path):
    monkeypatch.setattr("probe.taxonomy.search.search.train_saes", lambda *_, **__: pytest.fail("fitted"))
    with pytest.raises(ProbeError, match=r"training sentences are too few for a taxonomy of 5000 behaviours"):
        discover(config(taxonomy={"sizes": [4, 5000]}, decoding={"max_new_tokens": 8}), tmp_path)
    assert (
        list((tmp_path / "traces" / "train").glob("*.json")) and (tmp_path / "activations" / "manifest.json").exists()
    )


def test_traces_of_one_sentence(tmp_path):
    found = discover(config(decoding={"max_new_tokens": 4}), tmp_path)
    assert all(len(trace["sentences"]) == 1 for trace in found["traces"])
    assert sum(map(sum, found["transitions"]["counts"])) == 0
    assert len(found["map"]["points"]) == sum(found["transitions"]["start"]) == 8
    discovery_table(found)


def test_empty_traces(tmp_path, monkeypatch):
    def emptied(model, problem_set, problems, **_):
        traces = [make_trace(model, problem_set, problem, (), False) for problem in problems]
        return Traces(model.name, problem_set.name, traces, 0.0)

    monkeypatch.setattr("probe.pipeline.stages.generate_traces", emptied)
    with pytest.raises(ProbeError, match="0 training sentences are too few for a taxonomy"):
        discover(config(), tmp_path)


@pytest.mark.slow
def test_one_seed_and_one_validation_problem(tmp_path):
    found = discover(config(sizes={"validation": 1}, taxonomy={"seeds": [3], "rivals": []}), tmp_path)
    assert found["taxonomy"]["stability"] is found["taxonomy"]["agreement"] is None
    assert len(found["traces"]) == 1
    discovery_table(found)


def test_activations_that_are_no_numbers(tmp_path):
    model = load_model(ModelConfig("bundled:tiny-rl", prompt="{question}"), device="cpu")
    model.hf.get_submodule("model.layers.3.mlp.down_proj").weight.data[0, 0] = float("nan")
    model.hf.save_pretrained(tmp_path / "model")
    model.tokenizer.save_pretrained(tmp_path / "model")
    wrong = thinking(tmp_path / "model", taxonomy={"sites": ["resid_post.3"]}, decoding={"max_new_tokens": 8})
    with pytest.raises(ProbeError, match=r"a logit at new token 0 of prompt 0 of model is not finite"):
        discover(wrong, tmp_path / "out")


@pytest.mark.usefixtures("pageless")
@pytest.mark.parametrize(
    "damaged",
    [
        "activations/train/index.parquet",
        "activations/validation/shard-00000.safetensors",
        "taxonomy/sae_weights.safetensors",
        "taxonomy/scores.json",
        "taxonomy/taxonomy.json",
        "traces/validation/00000.json",
        "cards/cards.json",
    ],
)
def test_a_file_cut_short_is_named(copied, damaged):
    path = copied / damaged
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ProbeError, match=re.escape(str(path))):
        discover(config(), copied)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ProbeError, match="not empty"):
        discover(config(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_killed_in_every_stage_and_resumed_equals_never_killed(whole, tmp_path, kill):
    out = tmp_path / "run"
    for stage in ("traces", "activations", "taxonomy", "cards"):
        kill(discover, config(), out, stage)
        assert not (out / "discover.json").exists()
    assert discover(config(), out) == whole[1]
    assert (out / "discover.json").read_bytes() == (whole[0] / "discover.json").read_bytes()
