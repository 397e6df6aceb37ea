"""The problems that a command takes: as many of each split as it asks for, or all if a split has fewer."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from probe.errors import ProbeError
from probe.problems.local import HASHED
from probe.problems.problem_set import SPLITS, Problem, ProblemSet, split_of


@dataclass(frozen=True)
class Taken:
    """The problems that a command takes of a set.

    Attributes:
        problem_set: the set, with missing splits made; its note says how.
        splits: the problems of each split, at least one.
        remarks: sentences on what differs from the request: fewer problems, splits that were made, unknown answers.
    """

    problem_set: ProblemSet
    splits: Mapping[str, tuple[Problem, ...]]
    remarks: tuple[str, ...] = ()


def take_problems(problem_set: ProblemSet, wanted: Mapping[str, int], *, graded: Collection[str] = ()) -> Taken:
    """Take the first problems of several splits, or all problems of a split that has fewer.

    Args:
        problem_set: the problems. If a needed split is missing, a set with one split is divided into three, and a set
            without a validation split gets one from its train problems; see :func:`with_splits`.
        wanted: the largest number of problems of each split.
        graded: the splits in which an answer must be known; problems without one are left out.

    Raises:
        ProbeError: if a split has no problem that can be taken, or none is requested.
    """
    if (least := min(wanted.values())) < 1:
        raise ProbeError(f"{least} problems requested; at least 1 is needed")
    made = with_splits(problem_set, wanted)
    remarks = [] if made is problem_set else [f"{problem_set.name}: {made.note}"]
    splits: dict[str, tuple[Problem, ...]] = {}
    short: list[str] = []
    for split, n in wanted.items():
        there = made.splits.get(split, ())
        if not len(there):
            raise ProbeError(_none(made, split))
        if split in graded and isinstance(there, tuple):
            known = tuple(problem for problem in there if problem.answer is not None)
            if not known:
                raise ProbeError(
                    f"none of the {len(there)} {split} problems of {made.name} has a known answer, so nothing can be "
                    "graded; give them an 'answer' each (probe discover, circuits and diff need none)"
                )
            if len(known) < len(there):
                left_out = len(there) - len(known)
                said = f"{left_out} of {len(there)} {split} problems of {made.name}"
                remarks.append(f"{said} have no known answer and are left out")
            there = known
        some = splits[split] = tuple(there[:n])
        if unknown := sum(problem.answer is None for problem in some):
            remarks.append(f"{unknown} of {len(some)} {split} problems of {made.name} have no known answer")
        if len(some) < n:
            short.append(f"{len(some)} {split} problems ({n} requested)")
    if short:
        remarks.append(f"{made.name} has only {' and '.join(short)}; all of them are used")
    return Taken(made, splits, tuple(remarks))


def with_splits(problem_set: ProblemSet, needed: Collection[str]) -> ProblemSet:
    """Make the splits that a set lacks, by the hash of each question, so that no question is in two of them.

    A set with only one split, such as many published benchmarks, is divided into three. In a set with a train and a
    test split, some train problems become validation problems. Test problems of a set with several splits never become
    train problems.

    Args:
        problem_set: the problems.
        needed: the splits that are needed. A set that has them all is not changed.

    Returns:
        The set; its note says how it was split. Splits that cannot be made are still missing.
    """
    there = [split for split in SPLITS if len(problem_set.splits.get(split, ()))]
    missing = set(needed) - set(there)
    if not missing or not all(isinstance(problem_set.splits[split], tuple) for split in there):
        return problem_set
    if len(there) == 1:
        divided, said = SPLITS, f"has only {there[0]} problems, {HASHED}"
    elif missing == {"validation"}:
        divided, said = ("train", "validation"), "validation problems are train problems, chosen by a hash"
    else:
        return problem_set
    splits = {split: list(problem_set.splits.get(split, ())) for split in SPLITS}
    source = there[0] if len(there) == 1 else "train"
    moved, splits[source] = splits[source], []
    for problem in moved:
        # This hash differs from that of split_of, because split_of may have made the split that is divided here.
        home = split_of(f"divided: {problem.question}")
        splits[home if home in divided else source].append(problem)
    note = "; ".join(filter(None, [said, problem_set.note]))
    return replace(problem_set, splits={split: tuple(some) for split, some in splits.items()}, note=note)


def _none(problem_set: ProblemSet, split: str) -> str:
    remedy = (
        "give more problems, or a 'split' to each"
        if HASHED in problem_set.note
        else f"add some, or remove the split of every problem, so that a hash of the question makes {', '.join(SPLITS)}"
    )
    return f"{problem_set.name} has no {split} problems ({problem_set.counts}); {remedy}"
