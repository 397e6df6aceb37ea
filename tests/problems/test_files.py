"""Problems from files: as users write them, and as GSM8K and MATH-500 are published."""

import json
import random
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from probe.errors import ProbeError
from probe.problems import SPLITS, load_problems

PLAIN = [{"question": f"What is {i} + {i}?", "answer": 2 * i, "level": "easy"} for i in range(100)]
#: The form of the records of openai/gsm8k and HuggingFaceH4/MATH-500.
GSM8K = [
    {"question": f"How many is {i}?", "answer": f"It is <<{i}*1000={i}000>>{i},000.\n#### {i},000"}
    for i in range(1, 41)
]
MATH500 = [
    {
        "problem": f"Halve ${i}$.",
        "solution": "...",
        "answer": f"\\frac{{{i}}}{{2}}",
        "level": 1,
        "unique_id": f"test/{i}.json",
    }
    for i in range(40)
]


def lines(path, records):
    path.write_text("\n".join(map(json.dumps, records)) + "\n\n", encoding="utf-8")
    return path


def table(path, records):
    pq.write_table(pa.Table.from_pylist(records), path)
    return path


def by_question(problems):
    return {each.question: (split, each.answer) for split in SPLITS for each in problems.splits[split]}


def test_lines_are_split_by_hash_and_not_by_order(tmp_path):
    problems = load_problems(lines(tmp_path / "sums.jsonl", PLAIN))
    assert (problems.name, problems.grader, len(problems)) == ("sums", "numeric", 100)
    assert "split 50/20/30 by a hash of the question" in repr(problems)
    assert all(problems.take(split) for split in SPLITS)
    shuffled = random.Random(0).sample(PLAIN, 60)
    fewer = by_question(load_problems(str(lines(tmp_path / "b.jsonl", shuffled))))
    assert fewer.items() <= by_question(problems).items()


def test_the_splits_of_the_file_are_kept(tmp_path):
    records = [
        {**each, "id": f"id{i}", "split": ("train", "validation", "test")[i % 3]} for i, each in enumerate(PLAIN)
    ]
    problems = load_problems(lines(tmp_path / "a.jsonl", records))
    assert [len(problems.take(split)) for split in SPLITS] == [34, 33, 33]
    assert problems.take("test")[0].id == "id2"
    assert problems.note == ""


def test_parquet_and_lines_give_the_same_set(tmp_path):
    one, other = lines(tmp_path / "a.jsonl", PLAIN), table(tmp_path / "a.parquet", PLAIN)
    assert load_problems(one).hash == load_problems(other).hash


def test_answers_that_are_not_numbers_are_graded_exactly_unless_told(tmp_path):
    path = lines(tmp_path / "a.jsonl", [*PLAIN, {"question": "Half?", "answer": "x/2"}])
    words = lines(tmp_path / "b.jsonl", [*PLAIN, {"question": "Half?", "answer": "half"}])
    assert load_problems(path).grader == "exact"
    assert load_problems(path, grader="math-verify").grader == "math-verify"
    refusal = r"'numeric' cannot read 1 of 101 known answers of .*b\.jsonl \(line 101, id 'b/100': 'half'\)"
    with pytest.raises(ProbeError, match=refusal):
        load_problems(words, grader="numeric")


def test_the_grader_can_be_a_column(tmp_path):
    path = lines(tmp_path / "a.jsonl", [{**each, "grader": "exact"} for each in PLAIN])
    assert load_problems(path).grader == "exact"
    assert load_problems(path, grader="numeric").grader == "numeric"
    assert load_problems(path).hash != load_problems(path, grader="numeric").hash
    mistakes = {
        "numeric": r"a\.jsonl:101 has the grader 'numeric', the lines before it 'exact'",
        "": r"a\.jsonl:101 has no grader, unlike the lines before it",
        "numerical": r"unknown grader 'numerical'; did you mean 'numeric'",
    }
    for other, message in mistakes.items():
        more = {"question": "More?", "answer": 1} | ({"grader": other} if other else {})
        lines(path, [*({**each, "grader": "exact"} for each in PLAIN), more])
        with pytest.raises(ProbeError, match=message):
            load_problems(path)


@pytest.mark.parametrize(
    ("answers", "grader"),
    [
        (["1e-05", "3"], "numeric"),
        ([r"\frac{1}{2}", "2\\frac{1}{2}", "-½"], "numeric"),
        (["1,000", "50%", "$3"], "numeric"),
        (["[4]", "[1, 2]"], "exact"),
        (["1 0 1", "1 1 1"], "exact"),
        (["3", "B"], "exact"),
        (["12 cm"], "exact"),
    ],
)
def test_the_grader_follows_from_the_known_answers(tmp_path, answers, grader):
    path = lines(tmp_path / "a.jsonl", [{"question": f"{i}?", "answer": each} for i, each in enumerate(answers)])
    assert load_problems(path).grader == grader


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("ending", ["\r\n", "\n \n"])
def test_text_in_other_encodings_is_read(tmp_path, encoding, ending):
    records = [{"question": f"{i} Äpfel?", "answer": str(i), "id": i} for i in range(3)]
    (tmp_path / "a.jsonl").write_bytes(
        ending.join(json.dumps(each, ensure_ascii=False) for each in records).encode(encoding)
    )
    found = load_problems(tmp_path / "a.jsonl")
    assert {each.id for split in SPLITS for each in found.splits[split]} == {"0", "1", "2"}
    assert set(by_question(found)) == {each["question"] for each in records}


def test_problem_and_solution_are_read_too(tmp_path):
    records = [
        {"problem": "Half of 1?", "solution": "We halve it.\nSo it is $\\boxed{\\frac{1}{2}}$."},
        {"problem": "1 + 1?", "solution": "2"},
        {"problem": "2 + 2?", "solution": "Add them.\n#### 4"},
        {"problem": "3 + 3?", "solution": "Worked out.", "answer": "6"},
    ]
    found = by_question(load_problems(lines(tmp_path / "a.jsonl", records)))
    assert [found[each["problem"]][1] for each in records] == ["\\frac{1}{2}", "2", "4", "6"]


def test_an_integer_of_any_length_is_an_answer(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"question": "10^4999?", "answer": 1' + "0" * 4999 + "}")
    problems = load_problems(tmp_path / "a.jsonl")
    (problem,) = (each for split in SPLITS for each in problems.splits[split])
    assert problems.grade(f"The answer is {10**3 * 10**996}" + "0" * 4000, problem).correct
    assert not problems.grade(f"The answer is {10**3 * 10**996}" + "0" * 3999, problem).correct


def test_repeated_problems_are_dropped_and_counted(tmp_path):
    problems = load_problems(lines(tmp_path / "a.jsonl", [*PLAIN, *PLAIN[:3]]))
    assert len(problems) == 100
    assert "3 repeated problems dropped" in problems.note


def test_a_byte_order_mark_and_unicode_line_ends_inside_text_are_harmless(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"question": "a\u2028b", "answer": "ü"}, ensure_ascii=False), encoding="utf-8-sig")
    (problem,) = (each for split in SPLITS for each in load_problems(path).splits[split])
    assert (problem.question, problem.answer) == ("a\u2028b", "ü")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a\.jsonl holds no problems"),
        ("\n \n", r"a\.jsonl holds no problems"),
        ('{"question": "Q", "answer": " "}', r"a\.jsonl:1 has an empty 'answer'; omit the key"),
        ('{"question": "Q", "answer": 1}\n{"question": "Q"}', r"a\.jsonl:2 repeats the question of .* another answer"),
        ('{"answer": 1}', r"a\.jsonl:1 has no 'question'"),
        ('{"question": " ", "answer": 1}', r"a\.jsonl:1 has an empty 'question'"),
        ('{"question": "Q", "answer": [1]}', r"a\.jsonl:1 has \[1\] as its 'answer'"),
        ('\n{"question": "Q", "answer": 1', r"a\.jsonl:2 is not valid JSON"),
        ("[1]", r"a\.jsonl:1 is not a JSON object"),
        ('{"question": "Q", "answer": 1, "split": "dev"}', r"a\.jsonl:1 has the unknown split 'dev'"),
        (
            '{"question": "Q", "answer": 1, "split": "test"}\n{"question": "R", "answer": 1}',
            r"a\.jsonl:2 has no split, unlike the lines before it",
        ),
        (
            '{"question": "Q", "answer": 1}\n{"question": "Q", "answer": 2}',
            r"a\.jsonl:2 repeats the question of .*a\.jsonl:1 with another answer",
        ),
        (
            '{"question": "Q", "answer": 1, "id": "x"}\n{"question": "R", "answer": 2, "id": "x"}',
            r"a\.jsonl:2: two problems of a have the id 'x', the other is .*a\.jsonl:1",
        ),
        ('{"question": "Q", "answer": 1, "id": 0}\n{"question": "R", "answer": 2, "id": "0"}', r"a\.jsonl:2: two prob"),
        ('{"question": "Q", "answer": 1, "id": [1]}', r"a\.jsonl:1 has \[1\] as its 'id'"),
        ('{"question": "Q", "answer": 1, "split": {}}', r"a\.jsonl:1 has \{\} as its 'split'"),
        ('{"question": "Q", "answer": 1, "grader": true}', r"a\.jsonl:1 has True as its 'grader'"),
        ('{"question": "Q", "answer": NaN}', r"a\.jsonl:1 has nan as its 'answer'"),
        ('{"question": "Q", "answer": 1e999}', r"a\.jsonl:1 has inf as its 'answer'"),
        ('{"question": "Q \\ud83d", "answer": 1}', r"a\.jsonl:1 holds '\\ud83d', which is half of a character"),
        ('{"question": "Q", "answer": 1, "note": {"\\udc00": 1}}', r"a\.jsonl:1 holds '\\udc00'"),
        (
            '{\n "question": "Q",\n "answer": 1\n}',
            r"a\.jsonl:1 is not valid JSON .*over several lines: jq -c \. .*a\.jsonl",
        ),
        ('{"question": "Q", "answer": ' + "[" * 100_000, r"a\.jsonl:1 cannot be read \(maximum recursion"),
        ('{"question": "Q", "answer": "$"}', r"'exact' cannot read 1 of 1 known answers .*\(line 1, id 'a/0': '\$'\)"),
        (
            '{"question": "Q  1", "answer": 1, "split": "train"}\n{"question": " Q 1", "answer": 1, "split": "test"}',
            r"a\.jsonl:2 repeats the question of .*a\.jsonl:1",
        ),
        ('{"problem": "Q", "solution": "It follows\\nat once."}', r"a\.jsonl:1 has a solution without \\boxed"),
    ],
)
def test_a_bad_file_is_refused_naming_the_line(tmp_path, text, message):
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(ProbeError, match=message) as caught:
        load_problems(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("write", [lines, table])
def test_answers_need_not_be_known(tmp_path, write):
    """Such problems load, are counted, change nothing for the others, and no text is right or wrong for them."""
    some = [{**each, "answer": None if i % 4 == 0 else str(each["answer"])} for i, each in enumerate(PLAIN)]
    problems = load_problems(write(tmp_path / f"a.{'jsonl' if write is lines else 'parquet'}", some))
    assert problems.grader == "numeric" and "25 of 100 problems without a known answer" in problems.note
    found = {each.question: each for split in SPLITS for each in problems.splits[split]}
    for i, each in enumerate(PLAIN[:8]):
        problem = found[each["question"]]
        right, wrong, silent = (
            problems.grade(text, problem) for text in (f"The answer is {2 * i}.", "The answer is 1.", "I give up.")
        )
        if i % 4:
            assert right.correct and not (right.failed or wrong.correct or wrong.failed or silent.failed)
        else:
            assert (right.answer, wrong.answer, silent.answer) == (str(2 * i), "1", None)
            assert all(grade.failed and not grade.correct for grade in (right, wrong, silent))
    none = load_problems(lines(tmp_path / "b.jsonl", [{"question": each["question"]} for each in PLAIN]))
    assert len(none) == 100 and none.hash != problems.hash


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"question": "\xff"}')
    with pytest.raises(ProbeError, match=r"a\.jsonl:1 is not UTF-8"):
        load_problems(tmp_path / "a.jsonl")
    (tmp_path / "a.parquet").write_text("no")
    with pytest.raises(ProbeError, match="cannot be read as a Parquet file"):
        load_problems(tmp_path / "a.parquet")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(ProbeError, match="is not a file"):
        load_problems(tmp_path / "folder.jsonl")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"answer": pa.array([1.5, float("nan")])}, "row 1 has nan as its 'answer'"),
        ({"answer": pa.array([b"1", b"2"])}, "row 0 has b'1' as its 'answer'"),
        ({"answer": pa.array([[1], [2]])}, r"row 0 has \[1\] as its 'answer'"),
    ],
)
def test_a_table_with_other_values_is_refused_naming_the_row(tmp_path, column, message):
    pq.write_table(pa.table({"question": ["a?", "b?"], **column}), tmp_path / "a.parquet")
    with pytest.raises(ProbeError, match=message):
        load_problems(tmp_path / "a.parquet")


def test_a_table_of_decimals_is_read(tmp_path):
    answers = pa.array([Decimal("1.50"), Decimal("-2.00")])
    pq.write_table(pa.table({"question": ["a?", "b?"], "answer": answers, "id": [0, 1]}), tmp_path / "a.PARQUET")
    problems = load_problems(tmp_path / "a.PARQUET")
    assert problems.grader == "numeric"
    assert {answer for _, answer in by_question(problems).values()} == {"1.50", "-2.00"}


@pytest.mark.parametrize("spec", ["x" * 5000 + ".jsonl", "x" * 5000, "a\0.parquet", "gsm8k:a\0b.jsonl", ""])
def test_a_text_that_cannot_be_a_path_is_refused(spec):
    with pytest.raises(ProbeError):
        load_problems(spec)


@pytest.mark.parametrize("write", [lines, table])
def test_gsm8k_from_a_local_copy(tmp_path, write):
    path = write(tmp_path / f"test.{'jsonl' if write is lines else 'parquet'}", GSM8K)
    problems = load_problems(f"gsm8k:{path}")
    assert (problems.name, problems.grader, len(problems)) == ("gsm8k", "numeric", 40)
    problem = problems.take("test")[0]
    assert problem.answer.endswith("000") and problem.answer.isdigit()
    assert problems.grade(f"So $\\boxed{{{int(problem.answer):,}}}$ dollars.", problem).correct


def test_math500_from_a_local_copy(tmp_path):
    problems = load_problems(f"math500:{lines(tmp_path / 'test.jsonl', MATH500)}")
    assert (problems.name, problems.grader, len(problems)) == ("math500", "math-verify", 40)
    problem = problems.take("test")[0]
    half = int(problem.id.removeprefix("test/").removesuffix(".json")) / 2
    assert problems.grade(f"\\boxed{{{half}}}", problem).correct
    assert not problems.grade(f"\\boxed{{{half + 1}}}", problem).correct


def test_a_local_copy_of_something_else_is_refused(tmp_path):
    with pytest.raises(ProbeError, match=r"a\.jsonl:1 has no 'question'; is this a record of math500 as published"):
        load_problems(f"math500:{lines(tmp_path / 'a.jsonl', [{'answer': '1'}])}")


def test_a_hub_that_cannot_be_reached_says_what_to_do():
    with pytest.raises(ProbeError, match=r"gsm8k cannot be loaded from the hub .* gsm8k:PATH\.jsonl"):
        load_problems("gsm8k")


@pytest.mark.net
def test_math500_from_the_hub(monkeypatch):
    import datasets.config
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    problems = load_problems("math500")
    assert len(problems) == 500
