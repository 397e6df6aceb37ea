"""Runs and discoveries that start from traces that were exported, written in foreign shapes, and imported again."""

import hashlib
import json
from pathlib import Path

import pytest
from foreign import Foreign, write_jsonl
from typer.testing import CliRunner

from probe.cli import app
from probe.config import from_dict
from probe.errors import ProbeError
from probe.models import find_pair, load_pair, load_without_weights
from probe.pipeline import (
    CircuitConfig,
    DiffConfig,
    DiscoverConfig,
    RunConfig,
    diff,
    discover,
    export_traces,
    find_circuit,
    run,
)
from probe.pipeline.imported import imported_splits
from probe.problems import Problem, ProblemSet, load_problems
from probe.traces import Traces, generate_traces, import_traces, make_trace

pytestmark = pytest.mark.slow

SMALL = {
    "pair": "tiny-rl",
    "device": "cpu",
    "sizes": {"train": 14, "validation": 6, "test": 5},
    "decoding": {"batch_size": 16, "max_new_tokens": 170},
    "taxonomy": {"sizes": [3], "k": 1, "steps": 20, "seeds": [0]},
    "steering": {"steps": 4, "seeds": [0]},
    "policy": {"steps": 20},
    "hybrid": {"arms": ["hybrid", "oracle-free", "bias"]},
    "look": 0,
}


def config(**more) -> RunConfig:
    return from_dict(RunConfig, SMALL | more, "test")


def made(folder: Path) -> dict[str, str]:
    """A hash of every file that a run learned or decoded."""
    parts = ("activations", "taxonomy", "steering", "policy", "gates", "mechanisms", "arms", "effects")
    files = [file for part in parts for file in (folder / part).rglob("*") if file.is_file()]
    kept = [file for file in files if file.suffix in (".safetensors", ".parquet", ".json", ".yaml")]
    odd = ("manifest.json", "key.json")
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in kept
        if file.name not in odd and "done" not in file.name
    }


def figures(results: dict) -> dict:
    """The results, without times."""
    told = json.loads(json.dumps(results))
    for arm in told["arms"].values():
        arm.pop("seconds", None)
    return told


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "own"
    run(config(), out)
    return out


def test_a_run_from_its_own_traces_in_foreign_shapes_is_the_same_run(own, tmp_path):
    export_traces(own, tmp_path / "export", license="mit")
    model, story = load_without_weights(find_pair("tiny-rl").thinking), load_problems("story")
    exported = Traces.read(tmp_path / "export", model)
    foreign = Foreign(model, story, exported)
    shapes = ("vllm", "chat", "conversations", "openr1", "s1k", "plain")
    for shape in shapes:
        write_jsonl(tmp_path / f"{shape}.jsonl", getattr(foreign, shape)())
        kept = import_traces(tmp_path / f"{shape}.jsonl", tmp_path / f"in-{shape}", model, "story", author="tiny-rl")
        assert kept.traces == exported, shape
    # Those whose problems are found again by their questions, which have lost most.
    import_traces(tmp_path / "chat.jsonl", tmp_path / "in-free", model)
    again = run(config(traces=str(tmp_path / "in-free")), tmp_path / "run")
    assert made(tmp_path / "run") == made(own)
    assert figures(again)["arms"] == figures(json.loads((own / "results.json").read_text()))["arms"]
    # The place of the traces does not count, their content does.
    (tmp_path / "in-free").rename(tmp_path / "moved")
    run(config(traces=str(tmp_path / "moved")), tmp_path / "run")
    with pytest.raises(ProbeError, match="other settings"):
        run(config(), tmp_path / "run")


@pytest.mark.long
def test_circuits_and_diff_from_imported_traces_are_those_from_own_ones(tmp_path):
    pair, story = load_pair("tiny-rl", device="cpu"), load_problems("story")
    written = generate_traces(pair.thinking, story, story.take("train", 60), max_new_tokens=170)
    written.export(tmp_path / "export", story, license="mit")
    kept = str(import_traces(tmp_path / "export", tmp_path / "in", pair.thinking, "story").folder)
    alike = {"pair": "tiny-rl", "behaviour": "check", "train": 60, "test": 3, "max_new_tokens": 170, "device": "cpu"}
    circuit = {**alike, "n_pairs": 6, "heads": 1, "draws": 1, "method": "eap", "shares": [0.1, 1.0]}
    change = {**alike, "n_pairs": 8, "parts": ["tokens", "heads"], "heads": 1, "factors": [0.5], "draws": 1}
    for settings, kind, make in ((circuit, CircuitConfig, find_circuit), (change, DiffConfig, diff)):
        found = [
            make(from_dict(kind, {**settings, **more}, "test"), tmp_path / f"{kind.__name__}{len(more)}")
            for more in ({}, {"traces": kept})
        ]
        assert json.dumps(found[0], sort_keys=True) == json.dumps(found[1], sort_keys=True)
        with pytest.raises(ProbeError, match="other settings"):
            make(from_dict(kind, settings, "test"), tmp_path / f"{kind.__name__}1")


def test_several_samples_of_a_problem_and_no_problem_set(tmp_path):
    """Traces on questions that no set has: the problems are those of the traces, with all samples of each."""
    model = load_without_weights(find_pair("tiny-rl").thinking)
    story = load_problems("story")
    some = [Problem(f"own/{i}", f"{each.question} ", each.answer) for i, each in enumerate(story.take("train", 40))]
    texts = (" That makes 5 + 3 = 8. </think> The answer is 8.", " First, Leo finds 3 cards. That makes 2 + 3 = 5.")
    ids = [model.encode(text, start=False) for text in texts]
    named = ProblemSet("own", "numeric", {"train": tuple(some)})
    traces = [
        make_trace(model, named, each, ids[sample], sample == 1, sample=sample) for sample in (0, 1) for each in some
    ]
    records = [
        {"question": f"Please answer: {r['question']}", **{k: r[k] for k in ("response", "gold")}}
        for r in Foreign(model, named, traces).plain()
    ]
    kept = import_traces(write_jsonl(tmp_path / "some.jsonl", records), tmp_path / "in", model)
    splits = imported_splits(kept.folder, None, None, find_pair("tiny-rl"), needed=("train", "validation"))
    assert splits.problem_set.name == "some" and sum(map(len, splits.rows.values())) == 80
    train = splits.take("train", 5)
    chosen = splits.traces("train", train, tmp_path / "train")
    assert chosen.column("problem_id") == [each.id for each in train for _ in range(2)]
    assert chosen.column("sample") == [0, 1] * 5
    settings = {name: SMALL[name] for name in ("pair", "device", "decoding", "taxonomy")}
    sizes = {"sizes": {"train": 12, "validation": 4}, "falsify": {"sentences": 2, "prefixes": 1, "samples": 1}}
    wanted = from_dict(DiscoverConfig, {**settings, **sizes, "traces": str(kept.folder)}, "test")
    discover(wanted, tmp_path / "found")
    assert len(Traces.load(tmp_path / "found/traces/train")) == 24
    with pytest.raises(ProbeError, match="has none of the questions"):
        imported_splits(kept.folder, "story-share", None, find_pair("tiny-rl"), needed=())


def test_commands_import_show_and_export(tmp_path):
    rows = [
        {"question": f"What is {i}?", "response": f" That makes 5 + 3 = 8. </think> The answer is {i}.", "gold": str(i)}
        for i in range(1, 9)
    ]
    write_jsonl(tmp_path / "some.jsonl", rows)
    call = CliRunner().invoke
    out = str(tmp_path / "in")
    done = call(app, ["traces", "import", str(tmp_path / "some.jsonl"), "--pair", "tiny-rl", "--out", out])
    assert done.exit_code == 0, done.output
    assert "prompt and completion" in done.output and "rejected" not in done.output
    assert call(app, ["traces", "show", out]).exit_code == 0
    done = call(app, ["traces", "export", out, "--out", str(tmp_path / "export"), "--license", "mit"])
    assert done.exit_code == 0, done.output
    assert "license: mit" in (tmp_path / "export/README.md").read_text()
    for wrong in (
        ["import", "x.jsonl", "--out", out],
        ["import", "x.jsonl", "--pair", "tiny-rl", "--out", out],
        ["import", str(tmp_path / "some.jsonl"), "--pair", "tiny-rl", "--columns", "question", "--out", out],
        ["show", str(tmp_path)],
        ["export", out, "--out", out],
    ):
        failed = call(app, ["traces", *wrong])
        assert failed.exit_code == 2 and len(failed.output.strip().splitlines()) == 1, failed.output
