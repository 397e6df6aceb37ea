"""What the files of a run hold, as far as reports read it; every key may be missing, as in runs of earlier versions."""

from pathlib import Path
from typing import Any, TypedDict

from probe.config import as_type, read_as
from probe.errors import ProbeError
from probe.reports.html.prompts import FirstPrompt
from probe.reports.run.columns import Columns, check_columns
from probe.reports.run.look import Look

SCHEMA = 1
FIX = "run the same `probe run` again, which writes it again"

Number = float | None
Ends = tuple[Number, Number] | None
"""Both ends of an interval."""


class Estimate(TypedDict, total=False):
    """An estimate with its interval."""

    value: Number
    ci: Ends


class HowSampled(TypedDict, total=False):
    """How a model was sampled."""

    temperature: float
    top_p: float
    top_k: int | None
    min_p: float


class SampledPair(TypedDict, total=False):
    """How both models of a run were sampled."""

    base: HowSampled | None
    thinking: HowSampled | None
    samples: int | None


class ArmEntry(TypedDict, total=False):
    """The figures of one arm."""

    accuracy: Number
    ci: Ends
    n: int | None
    samples: int | None
    pass_at: dict[str, Estimate] | None
    tokens_per_answer: Number
    truncated: Number
    repetition: Number
    compression: Number
    looping: Number
    steered_fraction: Number
    seconds: Number
    bits_per_token: Number
    surprisal_per_token: Number
    agreement: Number
    fitted_parameters: Number
    base_passes: Number
    thinking_passes: Number
    parts: dict[str, Number] | None
    not_converged: list[str] | None


class Problems(TypedDict, total=False):
    """The problems of a run."""

    name: str | None
    split: str | None
    n: int | None
    train: int | None
    validation: int | None
    test: int | None
    note: str | None


class SeedEntry(TypedDict, total=False):
    """The hybrid with the vectors of one seed."""

    accuracy: Number
    gap_recovered: Estimate | Number


class Seeds(TypedDict, total=False):
    """All seeds of the hybrid."""

    values: list[int]
    hybrid: list[SeedEntry]
    mean: Number
    sd: Number
    gap_recovered: Estimate | None


class Test(TypedDict, total=False):
    """An arm compared with another on the same problems."""

    difference: Number
    ci: Ends
    p: Number
    p_holm: Number


class Tests(TypedDict, total=False):
    """All arms compared with one."""

    reference: str | None
    arms: dict[str, Test] | None
    detectable_gap: Number


class GivenBase(TypedDict):
    """Bits that remain when the base model's state is known."""

    bits_per_token: Number


class Oracle(TypedDict, total=False):
    """What the thinking model supplied."""

    bits_per_token: Number
    bits_per_steered_token: Number
    fitted_parameters: Number
    fitted_parameters_single: Number
    given_base: GivenBase | None


class TaxonomyEntry(TypedDict, total=False):
    """The taxonomy of a run."""

    site: str | None
    k: int | None
    variance_explained: Number
    stability: Number
    ami: Number


class Flip(TypedDict, total=False):
    """How often a vector causes its behaviour."""

    n: int
    rate: Number
    ci: Ends
    random: Number
    unsteered: Number


class FlipOfBehaviour(Flip):
    """The same for one behaviour."""

    behaviour: int


class Flips(Flip, total=False):
    """The same for all behaviours."""

    starts: int
    per_behaviour: list[FlipOfBehaviour] | None


class Errors(TypedDict, total=False):
    """Wrong answers of an arm by kind."""

    n: int | None
    content: Number
    behaviour: Number
    kinds: dict[str, int] | None


class Count(TypedDict, total=False):
    """The mean number of a behaviour in an answer."""

    mean: Number
    ci: Ends


class Counters(TypedDict, total=False):
    """Behaviours counted by rules."""

    arms: dict[str, dict[str, Count]] | None


class Effects(TypedDict, total=False):
    """What the vectors do."""

    flip: Flips | None
    gates: list[int] | None
    naming: dict[str, Number] | None
    errors: dict[str, Errors] | None
    counters: Counters | None


class _Step(TypedDict):
    step: int


class Check(_Step, total=False):
    """One evaluation during training."""

    loss: Number
    train: Number


class Trained(TypedDict):
    """How one part was trained."""

    steps: int
    converged: bool
    checks: list[Check]


class Training(TypedDict, total=False):
    """How all parts were trained."""

    parts: dict[str, Trained] | None


class CurveArm(TypedDict):
    """One arm of the learning curve."""

    accuracy: Number
    gap_recovered: Estimate | Number
    not_converged: list[str] | bool | None


class CurvePoint(TypedDict):
    """The learning curve at one number of train traces."""

    traces: int
    arms: dict[str, CurveArm]


class Results(TypedDict, total=False):
    """``results.json``, schema version 1."""

    pair: str | None
    problems: Problems | None
    seed: int | None
    sampling: SampledPair | None
    arms: dict[str, ArmEntry] | None
    gap_recovered: dict[str, Estimate | Number] | None
    seeds: Seeds | None
    tests: Tests | None
    oracle: Oracle | None
    taxonomy: TaxonomyEntry | None
    look: Look | None
    cut: str | None
    prompts: dict[str, FirstPrompt] | None
    settings: dict[str, Any] | None
    effects: Effects | None
    training: Training | None
    curve: list[CurvePoint] | None


class _Behaviour(TypedDict):
    behaviour: int


class Behaviour(_Behaviour, total=False):
    """One entry of ``behaviours.json``."""

    label: str | None
    share: Number
    true_type: str | None
    true_share: Number
    examples: list[str] | None
    vector_norm: Number
    mean_strength: Number
    gates: int | None


class _Token(TypedDict):
    text: str


class Token(_Token, total=False):
    """One emitted token of a trace in ``shown.json``."""

    steered: bool | None
    behaviour: int | None
    strength: Number
    base: str | None
    thinking: str | None


class ShownArm(TypedDict, total=False):
    """The answer of one arm to a problem; earlier versions wrote an object for each token."""

    text: str
    correct: bool | None
    answer: str | None
    truncated: bool | None
    think_end: int | None
    samples: int | None
    tokens: Columns | list[Token] | None


class Shown(TypedDict, total=False):
    """One entry of ``shown.json``: a problem and the answers of all arms."""

    problem_id: str
    question: str
    answer: str | None
    arms: dict[str, ShownArm] | None


class Graded(TypedDict):
    """``graded.json``: which problems each arm solved."""

    problems: list[str]
    correct: dict[str, list[bool | list[bool | None] | None]]
    """For each arm the grade of each problem or, with several samples, the grades of all samples."""


def read_results(folder: str | Path) -> dict[str, Any]:
    """Read a run's ``results.json``.

    Raises:
        ProbeError: if the file is missing, is damaged, or has another schema version.
    """
    path = Path(folder) / "results.json"
    if not path.is_file():
        raise ProbeError(f"{folder} holds no results.json; give the folder of a finished `probe run`")
    results = read_as(Any, path, fix=FIX)
    if not isinstance(results, dict) or "schema" not in results:
        raise ProbeError(f"{path} was not written by `probe run`; give the folder of a finished `probe run`")
    if results["schema"] != SCHEMA:
        raise ProbeError(f"{path} has schema {results['schema']}, this version reads {SCHEMA}; run `probe run` again")
    results = as_type(Results, results, str(path), fix=FIX)
    if len({tuple(sorted(point["arms"])) for point in results.get("curve") or []}) > 1:
        raise ProbeError(f"{path}: the points of the curve do not have the same arms; {FIX}")
    return results


def read_behaviours(folder: Path) -> list[dict[str, Any]]:
    """Read a run's ``behaviours.json``; empty if there is none.

    Raises:
        ProbeError: if the file is damaged.
    """
    return _optional(list[Behaviour], folder / "behaviours.json")


def read_shown(folder: Path) -> list[dict[str, Any]]:
    """Read a run's ``shown.json``; empty if there is none.

    Raises:
        ProbeError: if the file is damaged.
    """
    path = folder / "shown.json"
    problems = _optional(list[Shown], path)
    for i, problem in enumerate(problems):
        for name, arm in (problem.get("arms") or {}).items():
            if isinstance(arm.get("tokens"), dict):
                check_columns(arm["tokens"], f"{path}: problem {i}, {name}")
    return problems


def read_graded(folder: Path) -> dict[str, Any]:
    """Read a run's ``graded.json``; without problems if there is none.

    Raises:
        ProbeError: if the file is damaged, or an arm has another number of grades than there are problems.
    """
    path = folder / "graded.json"
    if not path.is_file():
        return {"problems": [], "correct": {}}
    graded = read_as(Graded, path, fix=FIX)
    for arm, grades in graded["correct"].items():
        if len(grades) != len(graded["problems"]):
            raise ProbeError(f"{path}: {arm} has {len(grades)} grades of {len(graded['problems'])} problems; {FIX}")
    return graded


def _optional(hint: Any, path: Path) -> Any:
    return read_as(hint, path, fix=FIX) if path.is_file() else []
