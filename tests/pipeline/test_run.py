"""A whole small run on random models: its result file, what is reused, what is refused, and resuming after a kill."""

import copy
import dataclasses
import json
import shutil
from contextlib import nullcontext

import pytest
import torch
from typer.testing import CliRunner

from probe.cli import app
from probe.config import from_dict, to_dict
from probe.engine import FolderLock
from probe.errors import ProbeError
from probe.files import object_hash
from probe.hybrid import Budget, Closing, Instruction, addition_arm, script_arm
from probe.hybrid.config import ARMS as KNOWN, BASELINES, INFERENCE
from probe.models import ModelConfig, ThinkTags, load_model
from probe.pipeline import RunConfig, add_arms, prepare, run
from probe.pipeline.folder import without
from probe.pipeline.run import candidates
from probe.pipeline.run.arms import ARM_RECIPES, arm_result, make_arm, recipe
from probe.pipeline.run.chosen import chosen
from probe.pipeline.run.experiment import Experiment
from probe.pipeline.run.inputs import weights_hash
from probe.pipeline.run.learned import mechanism, same_depth
from probe.pipeline.run.own import ask, own_arm, try_arm
from probe.reports import write_report
from probe.traces import Traces, decode_greedy
from tests.forked import Forked, command

ARMS = {
    "base",
    "thinking",
    "hybrid",
    "single-vector",
    "random-category",
    "min-cosine",
    "random-vectors",
    "random-positions",
    "rerank-only",
    "force-token",
    "oracle-free",
    "speculative",
    "majority",
}


def settings(tiny_folder, **more):
    small = {
        "base": {"path": str(tiny_folder("llama", seed=1)), "prompt": "Problem: {question}\nSolution:"},
        "thinking": {"path": str(tiny_folder("llama", seed=2)), "prompt": "Question: {question}\n<think>"},
        "problems": "story",
        "device": "cpu",
        "shown": 3,
        "look": 0,
        "sizes": {"train": 12, "validation": 6, "test": 8},
        "decoding": {"batch_size": 4, "max_new_tokens": 20},
        "taxonomy": {"sizes": [2, 3], "k": 1, "steps": 20, "seeds": [0, 1]},
        "steering": {"steps": 4, "seeds": [0, 1]},
        "policy": {"steps": 20},
        "hybrid": {"arms": ["probe", "oracle-free", "speculative", "majority"]},
    }
    return small | more


def timeless(found):
    """A result file without its times."""
    found = copy.deepcopy(found)
    for arm in found["arms"].values():
        arm.pop("seconds")
    return found


@pytest.fixture(scope="module")
def whole(tiny_folder, tmp_path_factory):
    """A run that was never interrupted."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, run(from_dict(RunConfig, settings(tiny_folder)), out)


def test_result_file_keeps_its_contract(whole):
    out, found = whole
    stored = json.loads((out / "results.json").read_text())
    assert stored == json.loads(json.dumps(found))
    assert stored["schema"] == 1
    told = stored["problems"]
    assert (told["name"], told["split"], told["n"]) == ("story", "test", 8)
    assert (told["train"], told["validation"], told["test"]) == (12, 6, 8)
    assert set(stored["arms"]) == ARMS
    assert set(stored["gap_recovered"]) == ARMS - {"base", "thinking"}
    prompts = json.loads((out / "prompts.json").read_text())
    assert prompts == stored["prompts"]
    assert prompts["base"]["text"].startswith("Problem: ") and prompts["base"]["text"].endswith("\nSolution:")
    assert prompts["thinking"]["thinking"] == "the prompt opens the thinking, which ends at </think>"
    assert '<section id="prompts">' in (out / "report.html").read_text()
    base, thinking = (stored["arms"][name]["accuracy"] for name in ("base", "thinking"))
    for name, gap in stored["gap_recovered"].items():
        own = stored["arms"][name]["accuracy"]
        assert gap["value"] == (None if base == thinking else pytest.approx((own - base) / (thinking - base)))
    for arm in stored["arms"].values():
        assert {"accuracy", "ci", "n", "tokens_per_answer", "truncated", "steered_fraction", "seconds"} <= set(arm)
        assert arm["ci"][0] <= arm["accuracy"] <= arm["ci"][1]
        assert arm["accuracy"] * 8 == round(arm["accuracy"] * 8), "a share of eight problems"
        assert arm["n"] == 8 and 0 < arm["tokens_per_answer"] <= 20
    assert {"bits_per_token", "bits_per_steered_token", "fitted_parameters"} <= set(stored["oracle"])
    assert {"site", "k", "variance_explained", "stability", "ami"} <= set(stored["taxonomy"])
    assert stored["seeds"]["values"] == [0, 1]
    assert stored["pair"] == "llama-words-2", "the thinking model's name"
    assert (out / "report.html").stat().st_size > 10_000


def test_forced_tokens_are_the_thinking_models(whole):
    out, _ = whole
    for problem in json.loads((out / "shown.json").read_text()):
        forced, thinking = problem["arms"]["force-token"], problem["arms"]["thinking"]
        written = "".join(forced["tokens"]["texts"][i] for i in forced["tokens"]["emitted"])
        assert forced.get("text", written) == thinking["text"]


def test_the_same_run_again_does_nothing_and_says_the_same(whole, tiny_folder, monkeypatch):
    out, found = whole
    monkeypatch.setattr("probe.hooks.decoding.runner.Runner.prefill", lambda _: pytest.fail("a model ran"))
    assert run(from_dict(RunConfig, settings(tiny_folder)), out) == found


@pytest.mark.parametrize(
    "lost",
    [
        *("traces/train/00000.json", "activations", "taxonomy", "steering/seed-1"),
        pytest.param("arms", marks=pytest.mark.slow),
    ],
)
def test_what_is_missing_is_made_again_the_same(whole, tiny_folder, tmp_path, lost):
    out, found = whole
    again = tmp_path / "again"
    shutil.copytree(out, again)
    for path in (again / lost, *again.glob(f"{lost.split('/')[0]}/manifest.json"), again / "results.json"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    assert timeless(run(from_dict(RunConfig, settings(tiny_folder)), again)) == timeless(found)


def test_seconds_are_those_of_the_work_and_not_of_the_last_process(whole, tiny_folder, tmp_path):
    out, found = whole
    again = tmp_path / "again"
    shutil.copytree(out, again)
    (again / "traces" / "manifest.json").unlink()
    (again / "arms" / "rerank-only" / "manifest.json").unlink()
    assert run(from_dict(RunConfig, settings(tiny_folder)), again) == found


def test_a_model_against_itself_has_no_gap_and_is_never_steered(tiny_folder, tmp_path):
    model = settings(tiny_folder)["thinking"]
    few = {"sizes": {"train": 6, "validation": 4, "test": 4}, "steering": {"steps": 2, "seeds": [0]}}
    found = run(from_dict(RunConfig, settings(tiny_folder, base=model, **few)), tmp_path / "same")
    assert all(gap == {"value": None, "ci": None} for gap in found["gap_recovered"].values())
    steered = {name for name, arm in found["arms"].items() if arm["steered_fraction"] > 0}
    assert steered <= {"speculative", "oracle-free"}, "only what does not look for disagreement is steered"
    assert found["oracle"]["bits_per_token"] == found["oracle"]["bits_per_steered_token"] == 0
    assert "No gap: base and thinking model are not distinguishable" in (tmp_path / "same" / "report.html").read_text()


def test_other_weights_of_the_same_size_are_other_models(tiny_folder, tmp_path):
    def of(seed):
        changed = shutil.copytree(tiny_folder("llama", seed=seed), tmp_path / str(seed))
        return weights_hash(load_model(ModelConfig(str(changed)), device="cpu"))

    assert of(1) != of(2)
    assert of(3) == weights_hash(load_model(ModelConfig(str(tiny_folder("llama", seed=3))), device="cpu"))


def test_a_hub_model_is_told_by_its_commit(tiny_folder):
    model = load_model(ModelConfig(str(tiny_folder("llama", seed=1))), device="cpu")
    model.config = ModelConfig("org/name", revision="main")
    model.hf.config._name_or_path = "org/name"
    assert weights_hash(model) == "main"
    model.commit = "c0ffee"
    assert weights_hash(model) == "c0ffee"


def test_other_settings_are_refused_and_named(whole, tiny_folder):
    out, _ = whole
    other = settings(tiny_folder, steering={"steps": 3, "seeds": [0, 1]})
    with pytest.raises(ProbeError, match=r"config\.steering\.steps: 4 there, 3 now"):
        run(from_dict(RunConfig, other), out)


def test_a_folder_of_something_else_is_left_alone(tiny_folder, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ProbeError, match="not empty"):
        run(from_dict(RunConfig, settings(tiny_folder)), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"problems": None}, "no problems given"),
        ({"pair": "tiny-rl"}, "both a pair and single models"),
        ({"base": None}, "no models given"),
        ({"device": "cuda:7"}, "there is no device"),
        ({"sizes": {"test": 0}}, r"sizes\.test is 0; it must be at least 1"),
        ({"shown": -1}, "shown is -1"),
        ({"seed": -1}, "seed: -1 is not a seed"),
        ({"decoding": {"batch_size": 0}}, r"decoding\.batch_size is 0; it must be at least 1"),
        ({"decoding": {"max_new_tokens": 0}}, r"decoding\.max_new_tokens is 0"),
        (
            {"taxonomy": {"sites": ["resid_post.4"]}},
            r"taxonomy\.sites has resid_post\.4; decoding reads llama-words-2 at ",
        ),
        ({"taxonomy": {"sites": ["resid_pre.2"]}}, r"taxonomy\.sites has resid_pre\.2"),
        ({"taxonomy": {"sites": ["embed"]}}, r"taxonomy\.sites has embed"),
        ({"taxonomy": {"sites": ["resid_pots.2"]}}, "did you mean 'resid_post'"),
        ({"taxonomy": {"sizes": [2], "k": 3}}, r"taxonomy\.k is 3"),
        ({"taxonomy": {"lr": 0}}, r"taxonomy\.lr is 0\.0; it must be above 0"),
        ({"taxonomy": {"outlier_multiple": 0.5}}, r"taxonomy\.outlier_multiple is 0\.5"),
        ({"taxonomy": {"seeds": [1, 1]}}, r"taxonomy\.seeds names a seed twice"),
        ({"steering": {"seeds": []}}, "seeds is empty"),
        ({"steering": {"seeds": [-1]}}, r"steering\.seeds: -1 is not a seed"),
        ({"steering": {"layer": 3}}, r"steering\.layer is 3"),
        ({"steering": {"layer": -1}}, r"steering\.layer is -1"),
        ({"steering": {"steps": 0}}, r"steering\.steps is 0"),
        ({"hybrid": {"arms": ["hybird"]}}, "unknown arm 'hybird'; did you mean 'hybrid'"),
        ({"engine": "processes:0"}, "engine is 'processes:0'; give here, processes:N"),
        ({"engine": "processes:2", "device": "cuda:0"}, "gives each process a GPU of its own, but a model is to be on"),
        ({"memory": "lots"}, "memory is 'lots'; write an amount with its unit"),
        ({"steering": {"layers": [1, 9]}}, r"steering\.layer is 9; .* can be steered at layers 0 to 2"),
        ({"steering": {"layer": 1, "layers": [1]}}, "both steering.layer and steering.layers"),
        ({"steering": {"hidden": 0}}, r"steering\.hidden is 0"),
        ({"steering": {"lr_vectors": float("nan")}}, r"steering\.lr_vectors is nan"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(tiny_folder, changed, said):
    with pytest.raises(ProbeError, match=said):
        prepare(from_dict(RunConfig, settings(tiny_folder, **changed)))


def test_answers_longer_than_a_table_of_positions_are_refused(tiny_folder):
    model = {"path": str(tiny_folder("gpt2", seed=1))}
    with pytest.raises(ProbeError, match=r"gpt2-words-1 has 512 positions: no room .* set max_new_tokens"):
        prepare(from_dict(RunConfig, settings(tiny_folder, base=model, decoding={"max_new_tokens": 500})))


@pytest.mark.parametrize(
    ("path", "name"), [("./models/mine", "mine"), ("org/name-1.5", "name-1.5"), ("bundled:tiny-rl", "tiny-rl")]
)
def test_a_run_of_two_models_is_named_after_the_thinking_model(path, name):
    assert from_dict(RunConfig, {"base": {"path": "./base"}, "thinking": {"path": path}}).name == name


def test_a_layer_is_chosen_on_validation(tiny_folder, tmp_path):
    config = from_dict(
        RunConfig,
        settings(tiny_folder, steering={"steps": 2, "seeds": [0], "layers": [2, 0]}, hybrid={"arms": ["hybrid"]}),
    )
    found = run(config, tmp_path)
    tried = json.loads((tmp_path / "steering" / "layers.json").read_text())
    best = min(tried["validation_loss"], key=tried["validation_loss"].get)
    assert set(tried["validation_loss"]) == {"0", "2"} and tried["chosen"] == int(best)
    assert found["settings"]["steering_site"] == f"resid_post.{best}"
    assert json.loads((tmp_path / "steering" / "seed-0" / "mechanism.json").read_text())["layer"] == int(best)


def test_what_the_oracle_tells_is_counted_by_part(whole):
    _, found = whole
    arms = found["arms"]
    assert arms["force-token"]["parts"]["token"] > 0 == arms["force-token"]["parts"]["which"]
    assert arms["oracle-free"]["bits_per_token"] == arms["majority"]["bits_per_token"] == 0
    assert arms["oracle-free"]["asks"] == [] and arms["oracle-free"]["agreement"] is None
    assert found["tests"]["arms"]["base"]["p_holm"] >= found["tests"]["arms"]["base"]["p"]
    assert found["oracle"]["given_base"]["bits_per_token"] > 0
    assert set(found["effects"]) >= {"flip", "naming", "counters", "errors"}


def test_every_arm_has_a_recipe_and_no_other():
    assert set(ARM_RECIPES) == {"base", "thinking", *KNOWN}
    with pytest.raises(ProbeError, match="there is no arm 'hybird'; did you mean 'hybrid'"):
        recipe("hybird")


def test_the_settings_on_record_are_those_that_an_arm_depends_on(tiny_folder):
    """They are in the manifests of old runs, which must be found again."""
    config = from_dict(RunConfig, settings(tiny_folder))
    expected = {
        "hybrid": {},
        "hybrid-seed-1": {},
        "rerank-only": {"rerank_among": 5},
        "v1-rerank": {"v1_strengths": [0.5, 0.6, 0.7, 0.8, 0.9, 1.0], "v1_windows": [0]},
        "v2-random-both": {},
        "majority": {"majority_temperature": 0.7},
        "oracle-free": {"policy": without(to_dict(config.policy), "layers", "tokens")},  # later settings, by default
        "lora-rank-1": {"distil": to_dict(config.distil)},
        "thinking-then-base": {},
        "thinking-opening": {"opening_tokens": 32},
        "latent-seek": {"latent_seek": to_dict(config.latent_seek)},
    }
    for name, more in expected.items():
        assert object_hash(recipe(name).settings(config)) == object_hash({"decoding": to_dict(config.decoding)} | more)


@pytest.mark.slow
def test_every_arm_runs_in_any_number_of_processes(whole, tiny_folder, tmp_path):
    """Baselines, mechanisms and both published versions are added to a finished run."""
    out, found = whole
    again = tmp_path / "again"
    shutil.copytree(out, again)
    shutil.rmtree(again / "arms")
    arms = ["probe", "oracle-free", "mean-difference", "decoder-rows", "rank-1", "v1", "v2", "inference", *BASELINES]
    small = {"distil": {"steps": 2}, "hybrid": {"arms": arms}, "engine": "processes:2"}
    more = run(from_dict(RunConfig, settings(tiny_folder, **small)), again)
    assert {"v1-rerank", "v2-random-both", "lora", "bias", "fusion"} <= set(more["arms"])
    assert more["arms"]["hybrid"]["accuracy"] == found["arms"]["hybrid"]["accuracy"]


def test_an_arm_of_ones_own_and_a_question(whole, tmp_path):
    out, _ = whole
    again = tmp_path / "again"
    shutil.copytree(out, again)
    experiment = Experiment.open(again)
    never = try_arm(experiment, own_arm(experiment, "never", "one:1", "2", "hybrid", "mine"), "never")
    assert never["accuracy"] == never["base"] and never["bits_per_token"] == 0
    short = try_arm(experiment, own_arm(experiment, "never", "one:1", "2", "hybrid", "mine"), "never", max_new_tokens=3)
    assert short["cut"].startswith("the limit of 3 tokens cut 100% of the answers of")
    asked = []
    answer = ask(experiment, "thinking", "Mia has 22 cards.", asked.append)
    thinking = experiment.stages.inputs.pair.thinking
    (greedy,) = decode_greedy(thinking, [thinking.prompt_ids("Mia has 22 cards.")], 20)
    assert (
        answer.trace.tokens == list(greedy.tokens) == [int(each["tokens"][0]) for each in asked][: len(greedy.tokens)]
    )
    for parts, said in (
        (("nowhere", "coming", "1", "hybrid"), "there is no 'nowhere'"),
        (("random", "coming", "1", "hybrid"), "write it as one of"),
        (("always", "one:7", "1", "hybrid"), "the taxonomy has behaviours 0 to"),
        (("always", "coming", "much", "hybrid"), "write 'learned', or a number"),
        (("random:often", "coming", "1", "hybrid"), "'often' is not a number"),
        (("random:nan", "coming", "1", "hybrid"), "'nan' is not a number"),
        (("random:2", "coming", "1", "hybrid"), "a rate is from 0 to 1"),
        (("sentence-start:-1", "coming", "1", "hybrid"), "a whole number of at least 1"),
        (("always", "coming", "inf", "hybrid"), "write 'learned', or a number"),
        (("always", "coming", "1", "rerank:0"), "a whole number of at least 1"),
    ):
        with pytest.raises(ProbeError, match=said):
            own_arm(experiment, *parts, "mine")
    for name in ("base", "thinking", "../mine", "a/b", "", ".."):
        with pytest.raises(ProbeError, match="use letters, digits"):
            own_arm(experiment, "never", "one:1", "2", "hybrid", name)
    with pytest.raises(ProbeError, match="at least 1 is needed"):
        try_arm(experiment, own_arm(experiment, "never", "one:1", "2", "hybrid", "mine"), "never", n=0)
    with pytest.raises(ProbeError, match="holds no run"):
        Experiment.open(tmp_path / "nothing")


def test_chat_ends_with_its_input_and_refuses_an_unknown_arm_first(whole):
    chat = ["chat", "--run", str(whole[0])]
    assert CliRunner().invoke(app, chat, input="").exit_code == 0
    assert CliRunner().invoke(app, [*chat, "--question", ""], input="").exit_code == 0
    done = CliRunner().invoke(app, [*chat, "--arm", "hybrd", "--question", "Mia has 22 cards."])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "did you mean 'hybrid'?" in done.stderr


@pytest.mark.slow
def test_killed_in_every_stage_and_resumed_equals_never_killed(whole, tiny_folder, tmp_path, kill):
    _, found = whole
    config, out = from_dict(RunConfig, settings(tiny_folder)), tmp_path / "run"
    for stage in ("traces", "activations", "taxonomy", "steering", "arms"):
        kill(run, config, out, stage)
        assert not (out / "results.json").exists()
    assert timeless(run(config, out)) == timeless(found)


@pytest.mark.slow
def test_a_learning_curve_of_all_traces_is_the_run_itself(tiny_folder, tmp_path):
    given = settings(tiny_folder, curve=[6, 12], hybrid={"arms": ["lora"]}, distil={"steps": 2})
    found = run(from_dict(RunConfig, given), tmp_path)
    small, whole = found["curve"]
    assert (small["traces"], whole["traces"]) == (6, 12)
    assert set(whole["arms"]) == {"hybrid", "hybrid-seed-1", "lora"}
    for name in ("hybrid", "lora"):
        assert whole["arms"][name]["accuracy"] == found["arms"][name]["accuracy"]
        assert whole["arms"][name]["gap_recovered"] == found["gap_recovered"][name]
    fewer = {"curve": [], "sizes": {"train": 6, "validation": 6, "test": 8}}
    alone = run(from_dict(RunConfig, given | fewer), tmp_path / "alone")
    for name in ("hybrid", "lora"):
        assert small["arms"][name]["gap_recovered"] == alone["gap_recovered"][name], "as if there were no more traces"
    assert run(from_dict(RunConfig, given), tmp_path)["curve"] == found["curve"]
    with pytest.raises(ProbeError, match=r"curve has 13 traces, but sizes\.train is 12"):
        from_dict(RunConfig, given | {"curve": [13]})


def test_a_run_opens_from_anywhere_and_after_it_was_moved(whole, tiny_folder, tmp_path, monkeypatch):
    """A run of a pair.yaml with relative paths: from another folder, moved alone, moved with its inputs, and linked."""
    monkeypatch.setattr("probe.hooks.decoding.runner.Runner.prefill", lambda _: pytest.fail("a model ran"))
    out, found = whole
    home = tmp_path / "project"
    for role, seed in (("base", 1), ("thinking", 2)):
        shutil.copytree(tiny_folder("llama", seed=seed), home / role)
    given = settings(tiny_folder)
    prompts = {role: given.pop(role)["prompt"] for role in ("base", "thinking")}
    pair = {role: {"path": f"./{role}", "prompt": prompt} for role, prompt in prompts.items()}
    (home / "pair.yaml").write_text(json.dumps({"name": "llama-words-2", "max_new_tokens": 512, **pair}))
    config = from_dict(RunConfig, given | {"pair": "pair.yaml"})
    shutil.copytree(out, home / "runs" / "mine")
    monkeypatch.chdir(home)
    # The inputs are known by their content: the models and prompts of another place and spelling are the same.
    assert timeless(run(config, "runs/mine")) == timeless(found)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link").symlink_to(home / "runs" / "mine")
    for path in ("project/runs/mine", home / "runs" / "mine", "~/project/runs/mine", "link"):
        assert Experiment.open(path).taxonomy.n_behaviours > 1
    home.rename(tmp_path / "moved")
    assert Experiment.open(tmp_path / "moved" / "runs" / "mine").inputs.pair.name == "llama-words-2"
    (tmp_path / "moved").rename(home)
    shutil.move(home / "runs" / "mine", tmp_path / "alone")
    (home / "pair.yaml").unlink()
    assert Experiment.open("alone").inputs.pair.config.thinking.prompt == prompts["thinking"]
    weights = next((home / "base").glob("*.safetensors"))
    shutil.copyfile(next((home / "thinking").glob("*.safetensors")), weights)
    with pytest.raises(ProbeError, match=r"other settings .base differs"):
        Experiment.open("alone")


def test_how_a_run_is_made_is_no_part_of_it(whole, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("probe.hooks.decoding.runner.Runner.prefill", lambda _: pytest.fail("a model ran"))
    out, found = whole
    again = shutil.copytree(out, tmp_path / "again")
    other = settings(tiny_folder, device="auto", decoding={"batch_size": 3, "max_new_tokens": 20})
    if not torch.cuda.is_available():
        assert timeless(run(from_dict(RunConfig, other), again)) == timeless(found)
    with pytest.raises(ProbeError, match=r"decoding\.max_new_tokens: 20 there, 21 now"):
        run(from_dict(RunConfig, settings(tiny_folder, decoding={"batch_size": 4, "max_new_tokens": 21})), again)


def copied_with_confidence(out, to):
    """A copy of a run whose base model rewards itself by its confidence, and is updated twice."""
    shutil.copytree(out, to)
    config = json.loads((to / "config.json").read_text())
    assert "latent_seek" not in config, "at its default, so that the settings of older runs are the same"
    config["latent_seek"] = {"reward": "confidence", "share": 0.3, "lr": 0.3, "updates": 2}
    (to / "config.json").write_text(json.dumps(config))
    return to


def test_latent_seek_is_added_to_a_run_and_its_cost_is_in_the_results(whole, tmp_path):
    again = shutil.copytree(whole[0], tmp_path / "refused")
    with pytest.raises(ProbeError, match=r"lacks words of the verifications; set latent_seek.reward to confidence"):
        add_arms(again, ["latent-seek"])
    again = copied_with_confidence(whole[0], tmp_path / "again")
    arms = add_arms(again, ["latent-seek", "latent-seek-grade"])["arms"]
    for name in ("latent-seek", "latent-seek-grade"):
        assert arms[name]["base_passes"] > arms["base"]["base_passes"] and arms[name]["thinking_passes"] == 0
        assert 0 < arms[name]["updates"] <= 2 and -1 <= arms[name]["first_reward"] <= 0
        assert arms[name]["accuracy"] >= (arms["base"]["accuracy"] if name.endswith("grade") else 0)
    assert "latent-seek" in (again / "report.html").read_text()
    config = json.loads((again / "config.json").read_text())
    config["latent_seek"] |= {"reward": "verifiers", "verdict_tokens": 7}
    (again / "config.json").write_text(json.dumps(config))
    made = arm_result(Experiment.open(again), "latent-seek-grade")
    assert made.name == "latent-seek-grade", "the true grade does not depend on what the base model says"
    with pytest.raises(ProbeError, match="made with other settings"):
        arm_result(Experiment.open(again), "latent-seek")


@pytest.mark.slow
def test_latent_seek_is_the_same_in_any_number_of_processes(whole, tmp_path):
    arms = ["latent-seek", "latent-seek-grade"]
    here, there = (
        add_arms(copied_with_confidence(whole[0], tmp_path / name), arms, engine=engine)
        for name, engine in (("here", "here"), ("there", "processes:2"))
    )
    assert timeless(here)["arms"] == timeless(there)["arms"]


def test_arms_that_cannot_be_made_leave_a_run_as_it_was(whole, tmp_path):
    again = shutil.copytree(whole[0], tmp_path / "again")
    before = {path: path.read_bytes() for path in again.rglob("*") if path.is_file()}
    for arms, said in (
        (["random-vectors", "few-shot"], "train traces are correct|do not fit"),
        (["v1", "few-shot"], "train traces are correct|do not fit"),
        (["hybird"], "did you mean 'hybrid'"),
    ):
        with pytest.raises(ProbeError, match=said):
            add_arms(again, arms)
        assert {path: path.read_bytes() for path in again.rglob("*") if path.is_file()} == before
    assert "fusion" in add_arms(again, ["fusion"])["arms"]


@pytest.mark.slow
def test_arms_of_inference_are_chosen_on_validation_and_priced(whole, tmp_path, monkeypatch):
    again = shutil.copytree(whole[0], tmp_path / "again")
    results = add_arms(again, ["inference"])
    found, tested = results["arms"], results["tests"]["arms"]
    assert set(INFERENCE) <= set(found)
    assert "budget" in tested and not any(name.endswith("on-thinking") for name in tested)
    for name in ("budget", "intervention-on-thinking", "addition"):
        choice = json.loads((again / "chosen" / name / "chosen.json").read_text())
        changing = [each for each in choice["tried"] if each["changed"]]
        assert bool(changing) != ("note" in choice)
        best = max(each["accuracy"] for each in changing or choice["tried"])
        assert {"setting": choice["chosen"], "accuracy": best}.items() <= max(
            choice["tried"], key=lambda each: each["setting"] == choice["chosen"]
        ).items()
    assert (again / "chosen" / "base-answers-6").is_dir(), "budgets of the base model follow from its own answers"
    assert found["thinking"]["thinking_passes"] > 0 == found["thinking"]["base_passes"]
    assert found["base"]["base_passes"] > 0 == found["base"]["thinking_passes"]
    assert found["addition"]["thinking_passes"] == 0 < found["addition"]["fitted_parameters"]
    on_thinking = found["budget-on-thinking"]
    assert on_thinking["base_passes"] == 0 < on_thinking["thinking_passes"]
    assert on_thinking["bits_per_token"] == on_thinking["surprisal_per_token"] > 0
    assert on_thinking["bits_per_steered_token"] is None
    assert all(arm["bits_per_token"] == sum(arm["parts"].values()) for arm in found.values() if "parts" in arm)
    monkeypatch.setattr("probe.hybrid.oracle.forced_pass", lambda *_: pytest.fail("texts were read again"))
    assert add_arms(again, ["budget"])["arms"]["budget-on-thinking"]["bits_per_token"] == on_thinking["bits_per_token"]
    assert found["hybrid"]["thinking_passes"] == found["hybrid"]["base_passes"]
    assert found["majority"]["base_passes"] > found["majority"]["tokens_per_answer"]
    page = write_report(again).read_text()
    assert "passes of the thinking model per answer" in page and "budget-on-thinking" in page
    experiment = Experiment.open(again)
    asked = ask(experiment, "intervention-on-thinking", "Mia has 22 cards.")
    assert any(asked.trace.steered)
    for where, arm in (("thinking", "thinking-then-base"), ("answer", "base-then-thinking"), ("opening:32", None)):
        own = own_arm(experiment, where, "one:0", "1", "token", "mine")
        assert arm is None or own.parts == make_arm(experiment, arm).parts


def test_a_layer_of_another_model_is_one_of_its_layers():
    assert [same_depth(layer, 4, 8) for layer in range(4)] == [0, 2, 4, 6]
    assert [same_depth(layer, 8, 4) for layer in range(8)] == [0, 0, 1, 2, 2, 2, 3, 3]
    assert same_depth(23, 24, 2) == 1


def with_train(out, **changes):
    """The opened run, whose train traces are changed."""
    experiment = Experiment.open(out)
    traces = experiment.rollouts.train
    changed = Traces(traces.model_name, traces.problems_name, [dataclasses.replace(each, **changes) for each in traces])
    vars(experiment)["rollouts"] = dataclasses.replace(experiment.rollouts, train=changed)
    return experiment


def test_arms_of_inference_without_thinking_are_refused_and_leave_a_run_as_it_was(whole, tmp_path, monkeypatch):
    unclosed = with_train(whole[0], think_end=None, truncated=False)
    closed = Experiment.open(whole[0])
    _ = closed.rollouts  # made with the usual prompt
    closed.inputs.pair.base.config = dataclasses.replace(
        closed.inputs.pair.base.config, prompt="{question}<think></think>"
    )
    for name in ("budget", "budget-on-thinking", "thinking-then-base", "base-then-thinking"):
        recipe(name).check(Experiment.open(whole[0]), name)
        with pytest.raises(ProbeError, match=f"no train trace closes its thinking by '</think>', which {name} needs"):
            recipe(name).check(unclosed, name)
        if name in ("budget", "base-then-thinking"):
            with pytest.raises(ProbeError, match=f"ends in '</think>', so it writes no thinking for the arm {name}"):
                recipe(name).check(closed, name)
        else:
            recipe(name).check(closed, name)
    again = shutil.copytree(whole[0], tmp_path / "again")
    before = {path: path.read_bytes() for path in again.rglob("*") if path.is_file()}
    monkeypatch.setattr(candidates, "_thinks", lambda *_: False)
    with pytest.raises(ProbeError, match="which budget needs"):
        add_arms(again, ["fusion", "budget"])
    assert {path: path.read_bytes() for path in again.rglob("*") if path.is_file()} == before


def test_a_budget_needs_an_end_that_can_be_told_and_a_text(whole):
    tags, (the, answer, plan, close) = ThinkTags("<think>", " The answer"), (48, 55, 91, 4)
    for tokens, refused in (((the, plan, the, answer), True), ((plan, the, answer), False)):
        experiment = with_train(whole[0], tokens=tokens, think_end=9, sentences=())
        experiment.inputs.pair.think_tags = tags
        said = pytest.raises(ProbeError, match="begins with ' The', which also occurs") if refused else nullcontext()
        with said:
            recipe("budget").check(experiment, "budget")
    experiment = with_train(whole[0], tokens=(plan, close), think_end=9, sentences=())
    texts = dataclasses.replace(experiment.config.hybrid, endings=("☃",), waits=("☃",), instructions=("☃",))
    experiment.stages = dataclasses.replace(
        experiment.stages, config=dataclasses.replace(experiment.config, hybrid=texts)
    )
    for name, said in (("budget", "hybrid.endings and hybrid.waits"), ("intervention", "hybrid.instructions")):
        with pytest.raises(ProbeError, match=f"can write none of {said}; .* or leave out the arm {name}"):
            recipe(name).check(experiment, name)


def test_usual_budgets_leave_room_for_an_answer_and_given_ones_without_it_are_refused(whole, monkeypatch):
    experiment = Experiment.open(whole[0])
    base, limit = experiment.inputs.pair.base, experiment.inputs.max_new_tokens
    tag = Closing.of(base, "</think>")
    close = base.encode("</think>", start=False)
    first = experiment.rollouts.validation[0]
    cut = dataclasses.replace(first, tokens=(48,) * limit, truncated=True)
    ended = dataclasses.replace(first, tokens=(48,) * 4, truncated=False)
    closed = dataclasses.replace(first, tokens=(*(48,) * 7, *close, *(48,) * (limit - 7 - len(close))), truncated=True)
    for traces, most, budgets in (
        ([ended, closed, cut, cut, cut], limit, [5, 6]),
        ([cut, cut], limit, [limit // 2]),
        ([ended, ended, closed], 6, [4]),
        ([closed], 7, [limit // 2]),
    ):
        monkeypatch.setattr(candidates, "own_answers", lambda *_, traces=traces: traces)
        assert candidates._usual_budgets(experiment, tag, False, most) == budgets
    ending = len(close)
    for tokens, refused in ((limit - ending - 1, False), (limit - ending, True), (limit, True)):
        given = dataclasses.replace(experiment.config.hybrid, budgets=(tokens,), endings=("",))
        config = dataclasses.replace(experiment.config, hybrid=given)
        experiment.stages = dataclasses.replace(experiment.stages, config=config)
        said = pytest.raises(ProbeError, match=f"hybrid.budgets has {tokens}, which leaves no room for an answer")
        with said if refused else nullcontext():
            recipe("budget").check(experiment, "budget")


def test_a_setting_of_an_arm_of_inference_that_changes_nothing_is_not_chosen(whole, tmp_path):
    experiment = Experiment.open(shutil.copytree(whole[0], tmp_path / "again"))
    nothing = Budget(Closing.of(experiment.inputs.pair.base, "</think>"), ())
    for name, more, best in (("some", {"told": Instruction((48,) * 15)}, "told"), ("none", {}, "nothing")):
        arms = {setting: script_arm(script, name) for setting, script in ({"nothing": nothing} | more).items()}
        assert chosen(experiment, arms, {}, on_thinking=False) == arms[best]
        kept = json.loads((tmp_path / "again" / "chosen" / name / "chosen.json").read_text())
        assert kept["tried"][0]["changed"] == 0 and ("note" in kept) == (name == "none")


def test_a_vector_that_changes_no_answer_is_not_chosen(whole, tmp_path):
    out = shutil.copytree(whole[0], tmp_path / "again")
    experiment = Experiment.open(out)
    made = make_arm(experiment, "addition")  # the vector
    assert not list(out.glob("mechanisms/addition-on-thinking*"))
    vector = mechanism(experiment, "addition")
    for on_thinking, name in ((False, "zero"), (True, "zero-on-thinking")):
        arms = {f"x {by}": addition_arm(vector, by, name) for by in (0.0, 300.0)}
        assert chosen(experiment, arms, {}, on_thinking) == arms["x 300.0"]
        tried = json.loads((out / "chosen" / name / "chosen.json").read_text())["tried"]
        assert [each["changed"] > 0 for each in tried] == [False, True]
    make_arm(experiment, "addition-on-thinking")
    answers = {folder.name for folder in (*out.glob("mechanisms/*-answers*"), *out.glob("chosen/*-answers*"))}
    assert answers == {"addition-answers-12", "base-answers-6"}, (
        "answers of the base model to train and validation problems"
    )
    assert make_arm(experiment, "addition") is made


def test_a_choice_is_warned_of_by_who_reads_it_and_refused_if_it_is_no_candidate(whole, tmp_path, capsys):
    out = shutil.copytree(whole[0], tmp_path / "again")
    worker, driver = (Experiment.open(out, progress=progress) for progress in (False, True))
    nothing = Budget(Closing.of(worker.inputs.pair.base, "</think>"), ())
    arms = {"nothing": script_arm(nothing, "none")}
    chosen(worker, arms, {}, on_thinking=False)
    assert "no setting changed" not in capsys.readouterr().err
    chosen(driver, arms, {}, on_thinking=False)
    assert capsys.readouterr().err.count("warning: no setting changed a validation answer, so none may be") == 1
    with pytest.raises(ProbeError, match=r"chosen.json chose 'nothing', which is not tried any more; remove .*none"):
        chosen(driver, {"other": arms["nothing"]}, {}, on_thinking=False)


def test_a_run_of_the_first_format_is_refused_and_left_alone(whole, tiny_folder, tmp_path):
    old = shutil.copytree(whole[0], tmp_path / "old")
    told = json.loads((old / "run.json").read_text())
    del told["format"]
    (old / "run.json").write_text(json.dumps(told))
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    with pytest.raises(ProbeError, match="begun by an earlier version: its results and report can be read"):
        run(from_dict(RunConfig, settings(tiny_folder)), old)
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before
    write_report(old)


@pytest.mark.slow
def test_the_second_of_two_processes_in_a_run_is_refused(tiny_folder, tmp_path):
    file, out = tmp_path / "run.yaml", tmp_path / "run"
    file.write_text(json.dumps(settings(tiny_folder)))
    arguments = ["run", "--config", str(file), "--out", str(out)]
    first = Forked(command, *arguments)
    first.wait_for((out / "run.json").exists)
    second = Forked(command, *arguments)
    assert second.wait(300) == 2
    first.kill()
    assert f"is being written by process {first.pid}" in second.stderr
    assert sum(line.startswith("probe: ") for line in second.stderr.splitlines()) == 1
    with FolderLock(out):
        pass
