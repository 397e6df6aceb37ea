"""The published problem sets that have a name: where they are, and what their records mean.

A record as published becomes one with ``question`` and ``answer``; the question names options, units and the form of
the answer where the published answer needs them. A record that cannot be asked or graded here is left out, and the
set's note says how many are, and why.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from probe.problems.answers import known_answer

Tidied = dict[str, Any] | str
"""A record with ``question`` and ``answer`` (and ``id``, ``grader`` where they differ), or why it is left out."""


@dataclass(frozen=True)
class Source:
    """A published problem set."""

    repository: str
    """Hub id of the data set."""
    splits: Mapping[str, str | None]
    """The published splits that are read, and what each is used as: ``train`` (of which a hash of the question moves
    some problems to validation), ``test``, or None for all three, divided by a hash of the question."""
    grader: str
    """The set's grader; records that name one themselves have their own."""
    tidy: Callable[[dict[str, Any]], Tidied]
    """Reads a record."""
    configs: tuple[str | None, ...] = (None,)
    """The configs of the data set that are read, one after another."""
    most: int | None = None
    """Number of records that are read of each split, the first ones; None reads all of them."""
    counter: str = "habits"
    """The scheme of :func:`probe.count_behaviours` that fits the answers."""
    checked: bool = False
    """Whether an answer is an expression that is evaluated, as there are many right ones."""


def _gsm8k(record: dict[str, Any]) -> Tidied:
    # The published answer is a worked solution that ends in "#### 1,234".
    answer = str(record["answer"]).rpartition("####")[2].strip().replace(",", "")
    return {"question": record["question"], "answer": answer}


def _math500(record: dict[str, Any]) -> Tidied:
    question = record["problem"] if "problem" in record else record["question"]
    return {"question": question, "answer": record["answer"], "id": record.get("unique_id")}


def _math(record: dict[str, Any]) -> Tidied:
    solution = str(record["solution"])
    answer = known_answer(solution)
    return "their solution has no box" if answer == solution else {"question": record["problem"], "answer": answer}


#: A longer reference of NaturalReasoning is an explanation, which no local grader can compare.
_LONGEST = 100


def _natural_reasoning(record: dict[str, Any]) -> Tidied:
    answer = str(record["reference_answer"] or "").strip()
    if not answer or "\n" in answer or len(answer) > _LONGEST:
        return "they have no short reference answer"
    return {"question": record["question"], "answer": answer}


#: The grader of TheoremQA and the form of answer that is asked for, by the published type of the answer.
_THEOREM = {
    "bool": ("exact", " Answer True or False."),
    "option": ("exact", " Answer with the letter of the right option in parentheses, such as (a)."),
    "integer": ("numeric", ""),
    "float": ("close", " Answer with a decimal number."),
    "list of integer": ("math-verify", " Answer with a list, such as [1, 2]."),
    "list of float": ("math-verify", " Answer with a list, such as [1.5, 2.0]."),
}


def _theoremqa(record: dict[str, Any]) -> Tidied:
    if record["Picture"] is not None:
        return "they need a picture"
    grader, form = _THEOREM.get(record["Answer_type"], ("math-verify", ""))
    return {"question": f"{str(record['Question']).strip()}{form}", "answer": record["Answer"], "grader": grader}


def _scibench(record: dict[str, Any]) -> Tidied:
    unit = str(record["unit"] or "").strip()
    question = str(record["problem_text"]).strip()
    return {
        "question": f"{question} Give the answer in {unit}." if unit else question,
        "answer": record["answer_number"],
    }


def _mmlu_pro(record: dict[str, Any]) -> Tidied:
    options = "\n".join(f"{chr(ord('A') + i)}. {option}" for i, option in enumerate(record["options"]))
    question = f"{record['question']}\n{options}\nAnswer with the letter of the right option."
    return {"question": question, "answer": record["answer"], "id": f"mmlu-pro/{record['question_id']}"}


def _mmlu_pro_open(record: dict[str, Any]) -> Tidied:
    answer = record["options"][record["answer_index"]]
    return {"question": record["question"], "answer": answer, "id": f"mmlu-pro/{record['question_id']}"}


def _aime(record: dict[str, Any]) -> Tidied:
    return {"question": record["problem"], "answer": str(record["answer"]).strip()}


def _countdown(record: dict[str, Any]) -> Tidied:
    numbers, target = [int(each) for each in record["nums"]], int(record["target"])
    return {
        "question": f"Using the numbers {numbers}, create an equation that equals {target}. Use each number once, with "
        "the operations +, -, * and /. Answer with the expression alone, such as (1 + 2) / 3.",
        "answer": f"an expression of {', '.join(map(str, numbers))} that equals {target}",
    }


_MATH = ("algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra")

SOURCES = {
    "gsm8k": Source("openai/gsm8k", {"train": "train", "test": "test"}, "numeric", _gsm8k, ("main",)),
    "math500": Source("HuggingFaceH4/MATH-500", {"test": None}, "math-verify", _math500),
    "math-train": Source(
        "EleutherAI/hendrycks_math", {"train": "train"}, "math-verify", _math, (*_MATH, "precalculus")
    ),
    "natural-reasoning": Source(
        "facebook/natural_reasoning", {"train": None}, "math-verify", _natural_reasoning, most=20_000
    ),
    "theoremqa": Source("TIGER-Lab/TheoremQA", {"test": None}, "math-verify", _theoremqa),
    "scibench": Source("xw27/scibench", {"train": None}, "close", _scibench),
    "mmlu-pro": Source("TIGER-Lab/MMLU-Pro", {"test": None}, "exact", _mmlu_pro),
    "mmlu-pro-open": Source("TIGER-Lab/MMLU-Pro", {"test": None}, "exact", _mmlu_pro_open),
    "aime-24": Source("HuggingFaceH4/aime_2024", {"train": "test"}, "numeric", _aime),
    "aime-25": Source("math-ai/aime25", {"test": "test"}, "numeric", _aime),
    "countdown": Source(
        "Jiayi-Pan/Countdown-Tasks-3to4",
        {"train": None},
        "exact",
        _countdown,
        most=20_000,
        counter="countdown",
        checked=True,
    ),
}
"""Every published problem set by its name."""
ALIASES = {"math-500": "math500"}
"""Other names of published problem sets."""
