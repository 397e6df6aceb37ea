"""The published sets by name, from fixtures with the columns of the hub's files: read, asked, graded, mixed."""

import json
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from probe.errors import ProbeError
from probe.problems import SPLITS, check_problems, load_problems
from probe.problems.mix import MIXES, is_mix
from probe.problems.sources import ALIASES, SOURCES

FIXTURES = Path(__file__).parent / "published"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Tables that the datasets library makes of folders go to a cache of the test."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))


def file_of(name: str) -> Path:
    return FIXTURES / f"{name.removesuffix('-open')}.jsonl"


def rows_of(name: str) -> list[dict]:
    return [json.loads(line) for line in file_of(name).read_text().splitlines()]


def all_of(problems):
    return {each.question: each for split in SPLITS for each in problems.splits.get(split, ())}


def the(problems, part: str):
    """The one problem whose question contains a text."""
    [found] = [each for question, each in all_of(problems).items() if part in question]
    return found


@pytest.mark.parametrize("name", SOURCES)
def test_lines_and_parquet_of_the_published_columns_give_the_same_problems(name, tmp_path):
    pq.write_table(pa.Table.from_pylist(rows_of(name)), tmp_path / "a.parquet")
    lines, table = load_problems(f"{name}:{file_of(name)}"), load_problems(f"{name}:{tmp_path / 'a.parquet'}")
    assert lines.hash == table.hash
    assert len(lines) >= 2


@pytest.mark.parametrize("name", SOURCES)
def test_a_folder_with_the_hub_s_layout_gives_the_same_problems(name, tmp_path):
    source = SOURCES[name]
    split = next(iter(source.splits))
    if name == "math-train":
        for i, config in enumerate(source.configs):
            (tmp_path / config).mkdir()
            rows = rows_of(name)[i : i + 1] or [{**rows_of(name)[0], "problem": f"Compute ${i} + 0$."}]
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / config / "train-00000-of-00001.parquet")
        parts = "".join(
            f"- config_name: {config}\n  data_files:\n  - split: train\n    path: {config}/train-*\n"
            for config in source.configs
        )
        (tmp_path / "README.md").write_text(f"---\nconfigs:\n{parts}---\n")
        problems = load_problems(f"{name}:{tmp_path}")
        assert len(problems) == 6  # one of the seven has no answer
        assert problems.splits["test"] == ()
        return
    for each in source.splits:
        pq.write_table(pa.Table.from_pylist(rows_of(name)), tmp_path / f"{each}-00000-of-00001.parquet")
        if len(source.splits) > 1 and each != split:  # the splits of a set never hold the same question
            rows = [{**row, "question": f"Again: {row['question']}"} for row in rows_of(name)]
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{each}-00000-of-00001.parquet")
    if source.configs != (None,):
        (tmp_path / "README.md").write_text(
            f"---\nconfigs:\n- config_name: {source.configs[0]}\n  data_files:\n"
            + "".join(f"  - split: {each}\n    path: {each}-*\n" for each in source.splits)
            + "---\n"
        )
    problems, alone = load_problems(f"{name}:{tmp_path}"), load_problems(f"{name}:{file_of(name)}")
    if len(source.splits) == 1:
        assert problems.hash == alone.hash
    else:
        assert {each.question for each in problems.splits["test"]} == {f"Again: {q}" for q in all_of(alone)}


def test_a_column_of_images_is_not_decoded(tmp_path):
    from datasets import Dataset, Features, Image, Value

    rows = [{**row, "Picture": row["Picture"] and {"bytes": b"no image", "path": None}} for row in rows_of("theoremqa")]
    kinds = Features({name: Image() if name == "Picture" else Value("string") for name in rows[0]})
    Dataset.from_list(rows, features=kinds).to_parquet(tmp_path / "test-00000-of-00001.parquet")
    problems = load_problems(f"theoremqa:{tmp_path}")
    assert len(problems) == 5 and "1 left out because they need a picture" in problems.note


#: For each set: a part of a question, a right text, a wrong text.
GRADED = [
    ("gsm8k", "Ana bakes", "So she bakes $1,200$ rolls.", "So she bakes 1,201 rolls."),
    ("math500", "half of", r"It is $\boxed{\dfrac{3}{8}}$.", r"It is $\boxed{\frac{3}{4}}$."),
    ("math-train", "Simplify", r"\boxed{0.5}", r"\boxed{2}"),
    ("natural-reasoning", "cart of 2 kg", r"The force is \boxed{6}.", r"The force is \boxed{5}."),
    ("natural-reasoning", "Which gas", "The answer is Carbon dioxide.", "The answer is Oxygen."),
    ("theoremqa", "bounded monotone", "The answer is True.", "The answer is False."),
    ("theoremqa", "subsets", "There are 16.", "There are 15."),
    ("theoremqa", "What is e", "It is about 2.718.", "It is about 2.3."),
    ("theoremqa", "roots", r"\boxed{[1, 2]}", r"\boxed{[1, 3]}"),
    ("theoremqa", "Which is prime", "The answer is (b).", "The answer is (c)."),
    ("scibench", "ideal gas", "The pressure is 50.9 atm.", "The pressure is 54 atm."),
    ("scibench", "ideal gas", r"\boxed{50.7 \mathrm{~atm}}", r"\boxed{5.07 \mathrm{~atm}}"),
    ("scibench", "photon", r"\boxed{3.98}", r"\boxed{-3.97}"),
    ("mmlu-pro", "planet", "The answer is (B).", "The answer is (A)."),
    ("mmlu-pro", "tenth option", r"\boxed{\text{J}}", r"\boxed{I}"),
    ("mmlu-pro-open", "planet", "The answer is Mercury.", "The answer is Venus."),
    ("aime-24", "primes", r"\boxed{25}", r"\boxed{250}"),
    ("aime-25", "3^6", r"\boxed{729}", r"\boxed{728}"),
    ("countdown", "[19, 36, 55]", "<answer> 55 + 36 - 19 </answer>", "<answer> 36 * 2 </answer>"),
    ("countdown", "[19, 36, 55]", r"\boxed{(36 - 19) + 55 = 72}", r"\boxed{55 + 36 - 19 = 71}"),
    ("countdown", "[44, 19, 35]", r"\boxed{44 + 19 + 35}", r"\boxed{44 + 19 + 35 + 0}"),
    ("countdown", "[1, 3, 2]", r"\boxed{\frac{3 + 1}{2}}", "The answer is __import__('os')."),
]


@pytest.mark.parametrize(("name", "part", "right", "wrong"), GRADED)
def test_a_right_answer_is_right_and_a_wrong_one_wrong(name, part, right, wrong):
    problems = load_problems(f"{name}:{file_of(name)}")
    problem = the(problems, part)
    verdicts = [problems.grade(f"Hm.</think> {text}", problem) for text in (right, wrong)]
    assert [(grade.correct, grade.failed) for grade in verdicts] == [(True, False), (False, False)]


def test_every_set_has_a_graded_example():
    assert {name for name, *_ in GRADED} == set(SOURCES)


def test_options_and_units_are_part_of_the_question():
    options = the(load_problems(f"mmlu-pro:{file_of('mmlu-pro')}"), "planet")
    assert options.question.splitlines()[1:4] == ["A. Venus", "B. Mercury", "C. Mars"]
    assert (options.answer, options.id) == ("B", "mmlu-pro/70")
    open_question = the(load_problems(f"mmlu-pro-open:{file_of('mmlu-pro')}"), "planet")
    assert (open_question.question, open_question.answer) == ("Which planet is nearest to the sun?", "Mercury")
    science = load_problems(f"scibench:{file_of('scibench')}")
    assert the(science, "photon").question.endswith(r"Give the answer in $10^{-19} \mathrm{~J}$.")
    assert the(science, "coin").question.endswith("a fair coin?")


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("math-train", "1 left out because their solution has no box"),
        ("natural-reasoning", "the first 20,000 records; 2 left out because they have no short reference answer"),
        ("theoremqa", "1 left out because they need a picture"),
        ("scibench", "1 left out because no grader can read their answers"),
    ],
)
def test_what_is_left_out_is_said(name, note):
    assert note in repr(load_problems(f"{name}:{file_of(name)}"))


def test_sets_with_one_purpose_have_problems_of_no_other():
    assert {split: len(load_problems(f"aime-24:{file_of('aime-24')}").splits[split]) for split in SPLITS} == {
        "train": 0,
        "validation": 0,
        "test": 2,
    }
    assert load_problems(f"math-train:{file_of('math-train')}").splits["test"] == ()


def test_a_set_has_the_same_problems_under_its_other_name():
    for other, name in ALIASES.items():
        assert load_problems(f"{other}:{file_of(name)}").hash == load_problems(f"{name}:{file_of(name)}").hash


def test_a_grader_of_one_s_own_replaces_that_of_every_problem():
    problems = load_problems(f"theoremqa:{file_of('theoremqa')}", grader="exact")
    assert not problems.grade("It is 2.718.", the(problems, "What is e")).correct
    assert problems.grader == "exact" and problems.verifier is None


def test_the_wording_of_countdown_is_one_that_the_counters_read():
    from probe.counters import countdown_problem

    problems = load_problems(f"countdown:{file_of('countdown')}")
    assert problems.counter == "countdown"
    assert countdown_problem(the(problems, "[44, 19, 35]").question) == ((44, 19, 35), 98)


@pytest.mark.parametrize("name", SOURCES)
def test_without_the_hub_each_set_says_in_one_line_how_to_give_a_file(name):
    with pytest.raises(ProbeError, match=rf"{name} cannot be loaded from the hub .*: {name}:PATH\.jsonl") as error:
        load_problems(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", SOURCES)
def test_records_of_another_set_are_refused(name, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "?", "reply": "!"}\n')
    with pytest.raises(ProbeError, match=rf"a\.jsonl:1 has no '.*'; is this a record of {name} as published"):
        load_problems(f"{name}:{tmp_path / 'a.jsonl'}")


@pytest.mark.parametrize(
    ("name", "change"),
    [("countdown", {"nums": "1,2"}), ("mmlu-pro", {"options": None}), ("mmlu-pro-open", {"answer_index": 99})],
)
def test_records_with_values_of_another_form_are_refused_in_one_line(name, change, tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps({**rows_of(name)[0], **change}))
    with pytest.raises(ProbeError, match=rf"mine.jsonl:1 has values of another form than .* records of {name}"):
        load_problems(f"{name}:{file}")


def test_of_a_local_file_as_many_records_are_read_as_of_the_hub(monkeypatch):
    monkeypatch.setitem(SOURCES, "countdown", replace(SOURCES["countdown"], most=2))
    problems = load_problems(f"countdown:{file_of('countdown')}")
    assert len(problems) == 2 < len(rows_of("countdown"))
    assert "the first 2 records" in problems.note


def test_a_folder_of_something_else_says_how_to_download_the_set(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ProbeError, match="hf download openai/gsm8k --repo-type dataset --local-dir"):
        load_problems(f"gsm8k:{tmp_path}")


@pytest.fixture
def sums(tmp_path):
    """Two files of sums without splits, of which some questions are in both."""

    def write(name: str, first: int, last: int) -> str:
        rows = [{"question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(first, last)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / f"{name}.jsonl")

    return write("a", 0, 60), write("b", 50, 120)


def mix(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.mark.usefixtures("sums")
def test_a_mix_has_the_numbers_it_names_and_no_question_twice(tmp_path):
    spec = mix(
        tmp_path / "m.yaml", "train: {a.jsonl: 30, b.jsonl: 40}\nvalidation: {a.jsonl: 10}\ntest: {b.jsonl: 20}\n"
    )
    problems = load_problems(spec)
    assert problems.name == "m"
    counts = {split: len(problems.splits[split]) for split in SPLITS}
    assert counts == {"train": 70, "validation": 10, "test": 20}
    assert len(all_of(problems)) == 100
    assert {each.id.partition(":")[0] for each in problems.splits["test"]} == {"b"}


@pytest.mark.usefixtures("sums")
def test_the_first_problems_of_a_mix_are_of_all_its_sets(tmp_path):
    spec = mix(tmp_path / "m.yaml", "train: {a.jsonl: 40, b.jsonl: 40}\n")
    first = [each.id.partition(":")[0] for each in load_problems(spec).take("train", 20)]
    assert 3 <= first.count("a") <= 17


@pytest.mark.usefixtures("sums")
def test_all_takes_what_the_numbers_leave(tmp_path):
    problems = load_problems(mix(tmp_path / "m.yaml", "train: {a.jsonl: all}\ntest: {a.jsonl: 7}\n"))
    assert [len(problems.splits[split]) for split in SPLITS] == [53, 0, 7]


def test_a_mix_grades_each_problem_as_its_set_does():
    spec = f"gsm8k:{file_of('gsm8k')}+countdown:{file_of('countdown')}"
    problems = load_problems(spec)
    assert problems.grader == "numeric or expression"
    rolls, expression = the(problems, "Ana bakes"), the(problems, "[19, 36, 55]")
    assert problems.grade("It is 1200.", rolls).correct and not problems.grade("It is 1201.", rolls).correct
    assert problems.grade(r"\boxed{55 + 36 - 19}", expression).correct
    assert not problems.grade(r"\boxed{72}", expression).correct


def test_sets_that_are_joined_keep_their_own_splits():
    parts = [f"math-train:{file_of('math-train')}", f"aime-24:{file_of('aime-24')}"]
    joined = load_problems("+".join(parts))
    for split in SPLITS:
        wanted = {each.question for part in parts for each in load_problems(part).splits[split]}
        assert {each.question for each in joined.splits[split]} == wanted


@pytest.mark.usefixtures("sums")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: {a.jsonl: 99}", "99 train problems of .*a.jsonl requested, but it has only 60 for them"),
        ("train: {a.jsonl: 0}", "train.a.jsonl is 0 in a mix|is 0 in a mix; give at least 1, or 'all'"),
        ("train: {a.jsonl: all}\nvalidation: {a.jsonl: all}\ntest: {a.jsonl: 3}", "all of a for two splits"),
        ("trian: {a.jsonl: 3}", "unknown key 'trian'.*did you mean 'train'"),
        ("{}", "a mix of problem sets names no set"),
        ("train: {story2: 3}", "unknown problem set 'story2'; did you mean 'story'"),
        ("train: {a.jsonl: some}", "must be a whole number or 'all', not 'some'"),
        ("train: {m.yaml: 3}", "m.yaml names itself"),
    ],
)
def test_a_wrong_mix_is_refused_in_one_line(tmp_path, text, said):
    with pytest.raises(ProbeError, match=said) as error:
        load_problems(mix(tmp_path / "m.yaml", text))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", MIXES)
def test_a_mix_that_ships_names_known_sets_and_is_checked_without_reading_them(name):
    check_problems(name)
    with pytest.raises(ProbeError, match=rf"cannot be loaded from the hub .* copy .*/{name}\.yaml") as error:
        load_problems(name)
    assert "\n" not in str(error.value)


def test_paths_of_published_sets_are_relative_to_the_settings_that_name_them(tmp_path):
    from probe.files import located

    def at(spec: str) -> str:
        return located({"problems": spec}, tmp_path)["problems"]

    assert at("gsm8k:a/b.jsonl") == f"gsm8k:{tmp_path}/a/b.jsonl"
    assert at("math-train:x+aime-25") == f"math-train:{tmp_path}/x+aime-25"
    assert at("mine.yaml") == f"{tmp_path}/mine.yaml"
    assert at("reasoning-gym:countdown") == "reasoning-gym:countdown"
    for name in ("a+b.jsonl", "c+d/e.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
        assert at(name) == f"{tmp_path}/{name}"
        assert at(f"math500:{name}") == f"math500:{tmp_path}/{name}"
        assert not is_mix(f"math500:{tmp_path}/{name}")
    assert at("math500:c+d") == f"math500:{tmp_path}/c+d"


def test_a_missing_local_copy_is_named_before_anything_is_read(tmp_path):
    with pytest.raises(ProbeError, match=r"there is no file or folder .*gone\.jsonl"):
        check_problems(f"math-train+gsm8k:{tmp_path / 'gone.jsonl'}")


def test_a_stream_that_is_interrupted_is_one_line(monkeypatch):
    def stream(*_, **__):
        def records():
            yield rows_of("countdown")[0]
            raise OSError("the connection was closed\nby the hub")

        return datasets.IterableDataset.from_generator(records)

    monkeypatch.setattr("datasets.load_dataset", stream)
    with pytest.raises(
        ProbeError, match=r"countdown cannot be loaded from the hub \(the connection was closed\)"
    ) as found:
        load_problems("countdown")
    assert "\n" not in str(found.value)
