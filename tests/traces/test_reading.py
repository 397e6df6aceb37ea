"""Traces in the shapes that other software writes, read as tokens that say exactly what was written."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from foreign import ODD, Foreign, write_jsonl

from probe.errors import ProbeError
from probe.models import Model, ModelConfig, ThinkTags, load_model
from probe.problems import Problem, ProblemSet
from probe.traces import Trace, Traces, import_traces, make_trace

SUMS = ProblemSet(
    "sums",
    "numeric",
    {"train": (Problem("a", "What is 1 + 1?", "2"), Problem("b", "What is 2 + 2, plus nothing?", "4"))},
)
SHAPES = ("vllm", "vllm_ids", "chat", "batch", "conversations", "openthoughts", "s1k", "openr1", "plain", "odd")


@pytest.fixture(scope="module")
def model(tiny_folder) -> Model:
    """A byte-level model whose prompt opens the thinking."""
    return load_model(ModelConfig(str(tiny_folder("llama", "letters")), prompt="Q: {question}\n<think>"), device="cpu")


@pytest.fixture(scope="module")
def own(model: Model) -> list[Trace]:
    """Three traces of two problems: one that ends, one that thinks on, a second sample."""
    said = (
        (0, " Hm — 1 + 1 = 2 </think> It is 2.", False, 0),
        (1, " 2 + 2. Wait", True, 0),
        (1, " x </think> 5.", False, 1),
    )
    problems = SUMS.take("train")
    return [
        make_trace(model, SUMS, problems[i], model.encode(text, start=False), cut, sample=sample)
        for i, text, cut, sample in said
    ]


def read(model: Model, path: Path, records: list, problems=SUMS, **more) -> Traces:
    return Traces.read(write_jsonl(path / "some.jsonl", records), model, problems, **more)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_the_same_traces(shape, model, own, tmp_path):
    records = getattr(Foreign(model, SUMS, own), shape)()
    columns = ODD if shape == "odd" else None
    assert list(read(model, tmp_path, records, author=model.name, columns=columns)) == own
    if shape not in ("vllm", "vllm_ids", "batch"):  # these have no known answer
        free = read(model, tmp_path, records, None, author=model.name, columns=columns)
        alike = [replace(each, problem_id="") for each in free]
        assert alike == [replace(each, problem_id="") for each in own]


def test_folders_and_an_export_give_the_same_traces(model, own, tmp_path):
    foreign = Foreign(model, SUMS, own)
    from datasets import Dataset, DatasetDict

    DatasetDict({"test": Dataset.from_list(foreign.plain())}).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "parts").mkdir()
    for i, record in enumerate(foreign.chat()):
        (tmp_path / "parts" / f"{i}.json").write_text(json.dumps(record))
    foreign.rollouts(tmp_path / "rollouts")
    made = Traces(model.name, "sums", own)
    made.export(tmp_path / "export", SUMS)
    for name in ("saved", "parts", "rollouts", "export"):
        assert list(Traces.read(tmp_path / name, model, SUMS)) == own, name
    done = import_traces(tmp_path / "export", tmp_path / "back", model)
    assert done.traces == made and done.problem_set.splits["train"] == SUMS.take("train")
    assert (tmp_path / "back/traces.parquet").read_bytes() == made.save(tmp_path / "own").read_bytes()
    done.traces.export(tmp_path / "again", done.problem_set)
    for file in ("README.md", "data/train-00000-of-00001.parquet"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "export" / file).read_bytes()


def one(model: Model, tmp_path: Path, record: dict, **more) -> Trace:
    (trace,) = read(model, tmp_path, [record], **more)
    return trace


def test_nothing_that_was_written_is_rendered_again(model, tmp_path):
    question = {"question": "What is 1 + 1?"}
    raw = "  two\n\n\tspaces </think>\n\n2 "
    assert one(model, tmp_path, {**question, "response": raw}).text == raw
    again = one(model, tmp_path, {**question, "response": f"<think>{raw}"})
    assert again.text == raw, "the prompt has opened the thinking"
    # Parts whose white space was stripped are joined as such models write them.
    stripped = {"role": "assistant", "reasoning": "It is 2.", "content": "2"}
    messages = [{"role": "user", "content": "What is 1 + 1?"}, stripped]
    assert one(model, tmp_path, {"messages": messages}).text == "\nIt is 2.\n</think>\n\n2"
    silent = [messages[0], {"role": "assistant", "reasoning": "It is", "content": None}]
    trace = one(model, tmp_path, {"messages": silent})
    assert (trace.text, trace.truncated, trace.answer) == ("\nIt is", True, None)
    prompt = "Solve: What is 2 + 2, plus nothing? <think>"
    trace = one(model, tmp_path, {"prompt": prompt, "completion": " 2 </think> 4"})
    assert trace.prompt == prompt and trace.correct
    ids = model.encode(" ok </think> 2", start=False)
    trace = one(model, tmp_path, {**question, "completion_ids": [*ids, *model.eos_ids]})
    assert (trace.tokens, trace.truncated) == (tuple(ids), False)
    # Ids of another tokenizer do not say the text.
    trace = one(model, tmp_path, {**question, "text": " ok </think> 2", "token_ids": [5, 6, 7]})
    assert trace.text == " ok </think> 2"


def test_another_models_tags_and_name_are_kept(model, tmp_path):
    record = {"question": "What is 1 + 1?", "response": "[THINK]Try 7.[/THINK]2", "model": "mistralai/Magistral"}
    closed = ModelConfig(model.config.path, prompt="Q: {question}\nA:")
    plain = load_model(closed, device="cpu")
    trace = one(plain, tmp_path, record)
    assert (trace.think_tags, trace.author) == (ThinkTags("[THINK]", "[/THINK]"), "mistralai/Magistral")
    assert trace.text == record["response"] and trace.correct
    assert one(plain, tmp_path, record | {"model": f"org/{plain.name.upper()}"}).author is None


def test_a_single_trace_is_imported_and_opened_again(model, own, tmp_path):
    path = write_jsonl(tmp_path / "one.jsonl", Foreign(model, SUMS, own).plain()[:1])
    first = import_traces(path, tmp_path / "out", model, SUMS)
    assert len(first.traces) == 1 and list(import_traces(path, tmp_path / "out", model, SUMS).traces) == own[:1]


def test_rejects_are_listed_with_their_reasons(model, own, tmp_path):
    records = [
        *Foreign(model, SUMS, own).plain(),
        {"question": "What is 9 + 9?", "response": "18"},
        {"question": "What is 1 + 1?", "response": ""},
        {"question": "What is 1 + 1?", "response": [1]},
        {"other": 1},
    ]
    path = write_jsonl(tmp_path / "some.jsonl", records)
    path.write_text(path.read_text() + '{"question": "cut\n')
    done = import_traces(path, tmp_path / "out", model, SUMS)
    assert list(done.traces) == own
    rejects = [json.loads(line) for line in (tmp_path / "out/rejects.jsonl").read_text().splitlines()]
    assert [each["place"].rpartition(":")[2] for each in rejects] == ["4", "5", "6", "7", "8"]
    reasons = [each["reason"] for each in rejects]
    for reason, said in zip(
        reasons,
        ("is not in sums", "its text is empty", "'response' is", "not of the shape", "not valid JSON"),
        strict=True,
    ):
        assert said in reason
    assert done.about["counts"]["rejects"] == 5 and sum(done.about["reasons"].values()) == 5


def test_an_import_is_opened_again_begins_again_or_is_refused(model, own, tmp_path, monkeypatch):
    path = write_jsonl(tmp_path / "some.jsonl", Foreign(model, SUMS, own).plain())
    out = tmp_path / "out"
    out.mkdir()
    (out / "traces.parquet").write_text("of an import that was killed")
    (out / ".traces.parquet.1a.tmp").write_text("too")
    first = import_traces(path, out, model, SUMS)
    assert not list(out.glob(".*.tmp")) and list(first.traces) == own
    with monkeypatch.context() as patched:
        patched.setattr("probe.traces.importing.traces_of", None)
        assert import_traces(path, out, model, SUMS).traces == first.traces
    with pytest.raises(ProbeError, match=r"holds other traces \(author"):
        import_traces(path, out, model, SUMS, author="someone")
    path.write_text(path.read_text() + "\n\n" + json.dumps({"question": "What is 1 + 1?", "response": "2"}))
    with pytest.raises(ProbeError, match=r"holds other traces \(source"):
        import_traces(path, out, model, SUMS)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    with pytest.raises(ProbeError, match=r"holds other files \(notes\.txt\)"):
        import_traces(path, tmp_path / "full", model, SUMS)


@pytest.mark.parametrize(
    ("records", "more", "said"),
    [
        ([], {}, "holds no records"),
        ([{"a": 1, "b": 2}], {}, "no known shape of traces fits .* whose columns are a, b; name the columns"),
        ([{"response": "x"}], {"problems": None}, "no question was found"),
        ([{"question": "What?", "response": "x"}], {}, "were rejected; the first is .* its question is not in sums"),
        ([{"a": 1}], {"columns": {"txt": "a"}}, "unknown part 'txt' in the column map; did you mean 'text'"),
        ([{"a": 1}], {"columns": {"question": "a"}}, "names no text"),
        (
            [{"messages": [{"role": "user", "content": "a"}] * 2 + [{"role": "assistant", "content": "b"}]}],
            {},
            "several turns",
        ),
        ([{"custom_id": "a", "error": {"message": "overloaded"}, "response": None}], {}, "error: overloaded"),
    ],
)
def test_what_cannot_be_read_is_one_line(records, more, said, model, tmp_path):
    with pytest.raises(ProbeError, match=said):
        read(model, tmp_path, records, **more)


def test_a_missing_source_is_one_line(model, tmp_path):
    with pytest.raises(ProbeError, match="there is no file or folder"):
        Traces.read(tmp_path / "gone.jsonl", model, SUMS)
    with pytest.raises(ProbeError, match=r"org/gone cannot be loaded from the hub"):
        Traces.read("org/gone", model, SUMS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ProbeError, match=r"has no \.jsonl, \.json or \.parquet file"):
        Traces.read(tmp_path / "empty", model, SUMS)
