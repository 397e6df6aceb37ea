"""What ``discover.json`` holds, as far as reports read it; every key may be missing, as in earlier versions."""

from pathlib import Path
from typing import Any, TypedDict

from probe.config import as_type, read_as
from probe.errors import ProbeError
from probe.reports.html.prompts import FirstPrompt

SCHEMA = 1
FIX = "run the same `probe discover` again, which writes it again"
_MOST = 10_000
"""More behaviours than this are a damaged number."""

Number = float | None
Ends = tuple[Number, Number] | None


class Taxonomy(TypedDict, total=False):
    """The taxonomy that was chosen."""

    site: str | None
    family: str | None
    n_behaviours: int | None
    seed: int | None
    rule: str | None
    score: Number
    variance_explained: Number
    stability: Number
    agreement: Number
    silhouette: Number
    decodability: Number
    centroid_f1: Number
    text_f1: Number
    ami: Number


class _Candidate(TypedDict):
    site: str
    family: str
    size: int


class Candidate(_Candidate, total=False):
    """One candidate for it."""

    seeds: list[int] | None
    passes: bool | None
    chosen: bool | None
    score: Number
    variance_explained: Number
    stability: Number
    agreement: Number
    silhouette: Number
    decodability: Number
    centroid_f1: Number
    text_f1: Number
    ami: Number


class Trial(TypedDict, total=False):
    """One test of a behaviour."""

    n: int | None
    rate: Number
    mean: Number
    ci: Ends
    control: Number
    expected: Number
    examples: list[str] | None


class Card(TypedDict, total=False):
    """All tests of a behaviour."""

    verdict: str | None
    reasons: list[str] | None
    injection: Trial | None
    removal: Trial | None
    paraphrase: Trial | None
    content: Trial | None
    stability: Trial | None


class _Behaviour(TypedDict):
    behaviour: int


class Behaviour(_Behaviour, total=False):
    """One behaviour."""

    name: str | None
    label: str | None
    description: str | None
    note: str | None
    merged_into: int | None
    share: Number
    true_type: str | None
    true_share: Number
    examples: list[str] | None
    terms: list[str] | None
    decodability: Number
    centroid_f1: Number
    text_f1: Number
    card: Card | None


class Usage(TypedDict):
    """The shares of behaviours in some traces."""

    traces: int
    sentences: int
    share: list[Number]
    ci: list[Ends]


class Transitions(TypedDict, total=False):
    """How often each behaviour follows each other one."""

    counts: list[list[int]] | None
    start: list[int] | None
    end: list[int] | None


class _Sentence(TypedDict):
    text: str


class Sentence(_Sentence, total=False):
    """A sentence of a trace."""

    behaviour: int | None
    type: str | None
    tokens: int | None


class _Trace(TypedDict):
    sentences: list[Sentence]


class Trace(_Trace, total=False):
    """A trace."""

    problem_id: str | None
    correct: bool | None
    answer: str | None
    truncated: bool | None
    think_end: int | None
    sample: int | None
    author: str | None


class Map(TypedDict, total=False):
    """Sentences in two dimensions."""

    method: str | None
    explained: Number
    points: list[tuple[float, float, int | None, str]] | None


class Counters(TypedDict, total=False):
    """Behaviours counted by rules."""

    scheme: str | None
    names: list[str] | None
    mean: list[Number]
    ci: list[Ends] | None


class Judge(TypedDict, total=False):
    """Scores by a judge."""

    name: str | None
    score: Number
    intervals: dict[str, Ends] | None
    consistency: Number
    completeness: Number
    independence: Number
    asked: int | None
    failed: int | None


class Problems(TypedDict, total=False):
    """The problems."""

    name: str | None
    train: int | None
    validation: int | None
    note: str | None


class Falsify(TypedDict, total=False):
    """How behaviours were tested."""

    rule: str | None


class Discovery(TypedDict, total=False):
    """``discover.json``, schema version 1."""

    model: str | None
    cut: str | None
    prompts: dict[str, FirstPrompt] | None
    problems: Problems | None
    taxonomy: Taxonomy | None
    grid: list[Candidate] | None
    behaviours: list[Behaviour] | None
    usage: dict[str, Usage] | None
    transitions: Transitions | None
    traces: list[Trace] | None
    map: Map | None
    falsify: Falsify | None
    counters: Counters | None
    judge: Judge | None


def read_discovery(folder: str | Path) -> dict[str, Any]:
    """Read the ``discover.json`` of a folder.

    Raises:
        ProbeError: if the file is missing, is damaged, or has another schema version.
    """
    path = Path(folder) / "discover.json"
    if not path.is_file():
        raise ProbeError(f"{folder} holds no discover.json; give the folder of a finished `probe discover`")
    found = read_as(Any, path, fix=FIX)
    schema = found.get("schema") if isinstance(found, dict) else type(found).__name__
    if schema != SCHEMA:
        raise ProbeError(f"{path} has schema {schema}, this version reads {SCHEMA}; run `probe discover` again")
    found = as_type(Discovery, found, str(path), fix=FIX)
    wrong = _inconsistent(found)
    if wrong:
        raise ProbeError(f"{path}: {wrong}; {FIX}")
    return found


def _inconsistent(found: dict[str, Any]) -> str:
    """What does not fit the number of behaviours; "" if everything does."""
    rows = found.get("behaviours") or []
    numbers = [each["behaviour"] for each in rows]
    size = max([(found.get("taxonomy") or {}).get("n_behaviours") or 0, *(number + 1 for number in numbers)])
    if not all(0 <= number < _MOST for number in numbers) or not 0 <= size <= _MOST or len({*numbers}) < len(numbers):
        return "behaviours are not numbered from 0, each once"
    given = [sentence.get("behaviour") for trace in found.get("traces") or [] for sentence in trace["sentences"]]
    given += [point[2] for point in (found.get("map") or {}).get("points") or []]
    given += [each.get("merged_into") for each in rows]
    if any(each is not None and not 0 <= each < size for each in given):
        return f"a sentence has a behaviour beyond the {size} there are"
    transitions, counters = found.get("transitions") or {}, found.get("counters") or {}
    counts = transitions.get("counts")
    lists = {
        f"usage.{name}": group[part] for name, group in (found.get("usage") or {}).items() for part in ("share", "ci")
    }
    lists |= {name: transitions[name] for name in ("start", "end") if counts and transitions.get(name)}
    lists |= {f"transitions.counts[{i}]": row for i, row in enumerate(counts or [])}
    lists |= {"transitions.counts": counts} if counts else {}
    wrong = [name for name, values in lists.items() if len(values) != size]
    if wrong:
        return f"{wrong[0]} does not have a value for each of {size} behaviours"
    named = len(counters.get("names") or [])
    if named and not len(counters.get("mean") or []) == len(counters.get("ci") or [0] * named) == named:
        return "counters do not have a mean for each name"
    return ""
