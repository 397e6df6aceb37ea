"""What a plan says of memory, passes and time, and that a run which cannot fit is refused before it loads a model."""

import json
from dataclasses import replace

import psutil
import pytest
from planned import write_config
from typer.testing import CliRunner

from probe.activations import harvest
from probe.cli import app
from probe.config import byte_size
from probe.errors import ProbeError
from probe.hybrid.config import ARMS
from probe.models import ModelConfig, load_pair
from probe.pipeline import Plan, RunConfig, SizesConfig, plan, run
from probe.pipeline.plan.devices import Device
from probe.pipeline.plan.fit import planned_stages
from probe.pipeline.plan.plan import plan_of
from probe.pipeline.plan.speeds import Speed, measure, speed_of
from probe.pipeline.plan.stages import Setup
from probe.pipeline.plan.work import ROLES, Passes, Texts
from probe.pipeline.run.arms import recipe
from probe.problems import load_problems
from probe.traces import generate_traces

GB = 10**9


def planned(shapes, size="7B", *, memory=80 * GB, train=400, tokens=2000, apart=False, engine="here", dtype=None):
    config = RunConfig(pair="x", dtype=dtype or "bfloat16", engine=engine, sizes=SizesConfig(train=train))
    shape = shapes[size] if dtype is None else replace(shapes[size], dtype=dtype, size=4)
    names = ("cuda:0", "cuda:1") if apart else ("cuda:0", "cuda:0")
    devices = {role: Device(name, memory, "A100") for role, name in zip(ROLES, names, strict=True)}
    speeds = dict.fromkeys(ROLES, speed_of(shape, "A100"))
    return plan_of(Setup(config, shape, shape, Texts(tokens)), devices, speeds)


def stage(made: Plan, name: str):
    return next(each for each in made.stages if each.stage.name == name)


def test_memory_of_a_device_does_not_grow_with_the_number_of_traces(shapes):
    few, many = (planned(shapes, train=train) for train in (400, 4000))
    for one, other in zip(few.stages, many.stages, strict=True):
        assert other.peak["cuda:0"] <= 1.1 * one.peak["cuda:0"], one.stage.name
    assert many.disk > 4 * few.disk
    assert stage(many, "gates").stage.passes["base"].read == pytest.approx(
        stage(few, "gates").stage.passes["base"].read * 4120 / 520
    )


def test_least_memory_grows_little_faster_than_the_length_of_traces(shapes):
    short, long = (planned(shapes, tokens=tokens) for tokens in (2000, 4000))
    for one, other in zip(short.stages, long.stages, strict=True):
        least, more = (each.stage.need(set(ROLES)).least for each in (one, other))
        # Attention masks grow with the square, and are small.
        assert more <= 2.5 * least, one.stage.name
        assert other.stage.passes.get("base", Passes()).tokens >= 1.7 * one.stage.passes.get("base", Passes()).tokens


def test_a_stage_takes_at_most_half_of_what_is_free_unless_its_smallest_part_is_larger(shapes):
    made = planned(shapes, tokens=16_000)
    room = (80 * GB - 2 * shapes["7B"].weights) / 2
    for each in made.stages:
        need = each.stage.need(set(ROLES))
        assert each.peak["cuda:0"] == need.given(room) <= max(need.least, room)
    assert made.peak("cuda:0") == pytest.approx(2 * shapes["7B"].weights + room)
    arms = next(each for each in made.stages if each.stage.together)
    assert 1 <= arms.rows < 100, "fewer rows than are asked for"
    assert f"{arms.rows} of 100 rows" in " ".join(made.sentences())


@pytest.mark.parametrize("size", ["1.5B", "7B", "32B"])
def test_weights_of_a_pair_on_one_device_and_on_two(shapes, size):
    together, apart = planned(shapes, size), planned(shapes, size, apart=True)
    weights = shapes[size].weights
    assert together.weights("cuda:0") == 2 * weights
    assert [apart.weights(name) for name in ("cuda:0", "cuda:1")] == [weights, weights]
    assert (together.fits, apart.fits) == (size != "32B", True)
    if size == "32B":
        assert together.lack == "the weights take 131 GB on cuda:0, and it has 80 GB"
        assert together.advice == "It would fit with one such device for each model"


def test_the_advice_makes_it_fit(shapes):
    long = planned(shapes, "32B", memory=140 * GB, tokens=60_000)
    assert not long.fits and long.lack is not None and " needs " in long.lack
    assert long.advice is not None and long.advice.startswith("Set decoding.max_new_tokens to at most ")
    fewer = int(long.advice.split()[-1])
    assert planned(shapes, "32B", memory=140 * GB, tokens=fewer).fits
    assert not planned(shapes, "32B", memory=140 * GB, tokens=int(1.2 * fewer)).fits

    wide = planned(shapes, memory=40 * GB, dtype="float32")
    assert wide.advice == "Set dtype to bfloat16 (--dtype bfloat16)"
    assert planned(shapes, memory=40 * GB).fits
    assert "smaller models" in str(planned(shapes, memory=10 * GB).advice)


def test_every_process_holds_its_own_pair(shapes):
    alone = {role: Device("cpu", 80 * GB, "CPU") for role in ROLES}
    three = {role: replace(device, pairs=3) for role, device in alone.items()}
    made = planned(shapes)
    speeds = dict.fromkeys(ROLES, speed_of(shapes["7B"], "CPU"))
    assert plan_of(made.setup, alone, speeds).fits
    refused = plan_of(made.setup, three, speeds)
    assert refused.weights("cpu") == 3 * 2 * shapes["7B"].weights
    assert (refused.fits, refused.advice) == (False, "Set engine to here, or to fewer processes")


def test_every_arm_that_can_be_named_is_planned(shapes):
    every = replace(planned(shapes).setup.config, hybrid=replace(RunConfig(pair="x").hybrid, arms=ARMS))
    setup = replace(planned(shapes).setup, config=every)
    devices = {role: Device("cuda:0", 80 * GB, "A100") for role in ROLES}
    folders = [
        folder
        for each in planned_stages(setup, devices, dict.fromkeys(ROLES, speed_of(setup.base, "A100")))
        for folder in each.stage.folders
    ]
    for name in every.hybrid.names:
        assert folders.count(f"arms/{name}") == 1, name
        for part in recipe(name).parts:  # whatever is trained for it
            assert part.rpartition("/")[0] in folders or part in folders or part.split("/")[0] in folders, part


@pytest.mark.slow
def test_passes_of_a_harvest_are_those_that_run():
    pair, story = load_pair("tiny-rl", device="cpu"), load_problems("story")
    problems = story.take("train", 24)
    traces = generate_traces(pair.thinking, story, problems, max_new_tokens=192)
    ran: list[int] = []
    first = pair.thinking.layers[0].register_forward_hook(lambda _, given, __: ran.append(given[0].shape[:2].numel()))
    harvest(pair.thinking, traces, ["resid_post.1"])
    first.remove()
    tokens, prompt = (
        round(sum(map(len, each)) / 24)
        for each in (
            [trace.tokens for trace in traces],
            [pair.thinking.prompt_ids(problem.question) for problem in problems],
        )
    )
    config = RunConfig(pair="tiny-rl", sizes=SizesConfig(train=23, validation=1, test=1))
    setup = replace(plan(config, memory=GB).setup, texts=Texts(tokens, prompt))
    devices = {role: Device("cpu", GB, "CPU") for role in ROLES}
    made = plan_of(setup, devices, dict.fromkeys(ROLES, speed_of(setup.base, "CPU")))
    formula = stage(made, "activations").stage.passes["thinking"].read
    assert setup.depth == 0.5, "two of four blocks"
    # Padding, and a first pass over some texts to find outliers.
    assert formula / setup.depth == pytest.approx(sum(ran), rel=0.35)


def test_times_come_from_a_table_and_are_wide_unless_measured(shapes):
    made = planned(shapes)
    low, high = made.seconds
    assert high > 1.8 * low and not made.measured
    assert "from a table of devices" in " ".join(made.sentences())
    speed = measure(ModelConfig("bundled:tiny-base"), "cpu", "float32", rows=4, tokens=64)
    assert speed.measured and 0 < speed.read[0] < speed.read[1] < 0.1 and 0 < speed.step[0] < speed.step[1] < 5
    assert Speed((1.0, 2.0), (3.0, 6.0)).seconds(Passes(read=10, decoded=40, rows=8), 4) == (10 + 30, 20 + 60)


def test_a_plan_shows_itself(shapes):
    made = planned(shapes)
    assert repr(made) == "Plan(x: fits)"
    assert all(each.stage.name in made._repr_html_() and each.stage.name in str(made) for each in made.stages)
    told = json.loads(json.dumps(made.as_dict()))
    assert told["fits"] and told["models"]["base"]["weights"] == shapes["7B"].weights
    assert {each["name"] for each in told["stages"]} >= {"traces", "gates", "vectors", "policy", "lora training"}


def test_the_command_reads_configs_alone_and_stays_within_80_columns(tmp_path):
    base, thinking = (write_config(tmp_path / name, "7B") for name in ("base", "thinking"))
    given = ["--base", base, "--thinking", thinking, "--dtype", "bfloat16", "--tokens", "2000", "--traces", "10000"]
    done = CliRunner().invoke(app, ["plan", *given, "--device-memory", "80GB"], env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.stderr
    table = done.stdout.partition("Weights")[0]
    assert max(map(len, table.splitlines())) <= 80 and "…" not in table
    assert "It fits." in done.stdout and "15.2 GB" in done.stdout
    done = CliRunner().invoke(app, ["plan", *given, "--device-memory", "16 GB", "--json"])
    told = json.loads(done.stdout)
    assert told["lack"] == "the weights take 30.5 GB on cuda, and it has 16 GB"
    assert told["texts"]["tokens"] == 2000


def test_a_run_that_cannot_fit_is_refused_in_one_line_before_anything_is_loaded(tmp_path, monkeypatch):
    # Without weights or tokenizers: loading them would be another error.
    seven, other = (write_config(tmp_path / name, "7B") for name in ("seven", "other"))
    models = {"base": ModelConfig(seven), "thinking": ModelConfig(other)}
    _free(monkeypatch, 16 * GB)
    with pytest.raises(ProbeError) as refused:
        run(RunConfig(**models, problems="story", device="cpu"), tmp_path / "run")
    told = str(refused.value)
    assert told.startswith("this run does not fit: the weights take 60.9 GB on cpu, and it has 16 GB free. ")
    assert "\n" not in told and not (tmp_path / "run").exists()
    with pytest.raises(ProbeError, match=r"the weights take 30\.5 GB on cpu"):  # both models have the same weights
        shared = models | {"thinking": ModelConfig(seven, prompt="Think: {question}")}
        run(RunConfig(**shared, problems="story", device="cpu"), tmp_path / "run")
    _free(monkeypatch, 35 * GB)
    config = RunConfig(**models, problems="story", device="cpu", dtype="bfloat16")
    with pytest.raises(
        ProbeError, match=r"needs .* GB on cpu in addition to 30.5 GB of weights, .* Set decoding.max_new_tok"
    ):
        run(replace(config, decoding=replace(config.decoding, max_new_tokens=64_000)), tmp_path / "run")


def _free(monkeypatch, size):
    kind = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: kind._replace(available=size))


def test_amounts_of_memory():
    assert [byte_size(text) for text in ("80GB", "80g", "1 GiB", "1.5kB", "12 B")] == [
        80 * GB,
        80 * GB,
        2**30,
        1500,
        12,
    ]
    for wrong in ("80XB", "", "-3GB", "0", "GB", "8 i", "40", "0GB"):
        with pytest.raises(ProbeError, match="write an amount with its unit"):
            byte_size(wrong)
    with pytest.raises(ProbeError, match="tokens is 0"):
        plan(RunConfig(pair="tiny-rl"), tokens=0, memory=GB)
