"""What can be wrong with the answers of a look. Each rule reads the answers and gives a verdict with a likely cause."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from probe.models import KNOWN_TAGS
from probe.pipeline.cut import SOME_CUT
from probe.pipeline.look.seen import Seen, Side
from probe.problems import GRADERS, Problem
from probe.traces import Trace

ENOUGH = 10
"""The smallest number of graded problems from which a difference between the models stops a run."""
ALL_CUT = 0.9
"""The share of cut answers from which the verdict is ``all cut``."""
_SOLVED = 0.9
"""The accuracy of the base model from which no gap is left to recover."""


@dataclass(frozen=True)
class Verdict:
    """Something that is wrong, or that a look cannot decide."""

    name: str
    """The name of the rule, as in :data:`RULES`."""
    model: str | None
    """``base`` or ``thinking``; None if the verdict is about both."""
    stops: bool
    """Whether the verdict stops a run without ``--anyway``."""
    finding: str
    """What was seen, and the likely cause, as a sentence."""
    remedy: str
    """What to do."""


Said = tuple[bool, str, str] | None
"""Whether a run stops, the finding and the remedy; None if nothing is wrong."""


@dataclass(frozen=True)
class Rule:
    """When a verdict is given. A rule reads the answers of one model or of both."""

    name: str
    when: str
    """When the verdict is given."""
    stops: str
    """When the verdict stops a run."""
    of_side: Callable[[Side], Said] | None = None
    of_pair: Callable[[Seen], Said] | None = None


def verdicts(seen: Seen) -> list[Verdict]:
    """All verdicts on the answers; those that stop a run come first."""
    found = [
        Verdict(rule.name, side.role, *said)
        for rule in RULES
        if rule.of_side is not None
        for side in seen.sides
        if (said := rule.of_side(side))
    ]
    # If a model could not be measured, the two cannot be compared. One verdict about both models explains the others.
    compared = [rule for rule in RULES if rule.of_pair is not None and not any(each.stops for each in found)]
    both = (Verdict(rule.name, None, *said) for rule in compared if rule.of_pair and (said := rule.of_pair(seen)))
    found += list(islice(both, 1))
    return sorted(found, key=lambda verdict: not verdict.stops)


def of_n(n: int, side: Side) -> str:
    """Write a number of answers, such as ``12 of 30 answers of the base model``."""
    return f"{n} of {len(side.traces)} answers of {side.name}"


def _ends_at_once(side: Side) -> Said:
    empty = side.count(lambda trace: not trace.truncated and not trace.text.strip())
    if not side.half(empty):
        return None
    ids, prompt = side.model.prompt_ids(side.problems[0].question), side.traces[0].prompt
    if ids[-1] in side.model.eos_ids:
        cause = f"its prompt ends with its end token, {side.model.decode([ids[-1]])!r}"
    elif prompt != prompt.rstrip(" \t"):
        cause = "its prompt ends in a space, which most tokenizers attach to the next word"
    else:
        cause = "its first token is an end token, so it does not continue this prompt"
    return side.none_right, f"{of_n(empty, side)} are empty: {cause}", _other_prompt(side)


def _all_cut(side: Side) -> Said:
    cut = side.count(lambda trace: trace.truncated)
    if cut < ALL_CUT * len(side.traces):
        return None
    loops = sum(side.loops)
    if side.half(loops):
        how = "greedy decoding loops" if side.sampling.greedy else f"it loops with {side.sampling}"
        said = f"{of_n(cut, side)} reached {side.max_new_tokens:,} tokens, {_looping(loops)}: {how}"
        return side.none_right, said, _sampled(side)
    said = f"{of_n(cut, side)} reached {side.max_new_tokens:,} tokens, which are too few"
    return side.none_right, said, _more_tokens(side)


def _some_cut(side: Side) -> Said:
    cut, n = side.count(lambda trace: trace.truncated), len(side.traces)
    if not max(1, SOME_CUT * n) < cut < ALL_CUT * n:
        return None
    lengths = sorted(len(trace.tokens) for trace in side.ended)
    loops = sum(loop for loop, trace in zip(side.loops, side.traces, strict=True) if trace.truncated)
    said = (
        f"{of_n(cut, side)} reached {side.max_new_tokens:,} tokens, {_looping(loops)}; of the others, "
        f"half have at most {lengths[len(lengths) // 2]:,} tokens and all have at most {lengths[-1]:,}"
    )
    return False, said, _sampled(side) if 2 * loops >= cut else _more_tokens(side)


def _not_closed(side: Side) -> Said:
    unclosed = [trace for trace in side.traces if side.unclosed(trace)]
    if not side.half(len(unclosed)):
        return None
    tags = side.model.think_tags
    other = next(
        (known.close for known in KNOWN_TAGS if known != tags and all(known.close in trace.text for trace in unclosed)),
        None,
    )
    if other is not None:
        return (
            side.none_right,
            f"{of_n(len(unclosed), side)} end without {tags.close!r}, but contain {other!r}",
            f"set think_close to {other!r} in the settings of the pair",
        )
    opened = tags.opened_by(side.traces[0].prompt)
    where = "the prompt opens the thinking" if opened else "the answers open the thinking"
    return (
        side.none_right,
        f"{of_n(len(unclosed), side)} have no answer: {where}, and nothing closes it with {tags.close!r}",
        f"give {side.name} a prompt that does not open the thinking (--{side.role}-prompt), or set think_close"
        if opened
        else "set think_close in the settings of the pair to the text that ends the thinking",
    )


def _no_answer(side: Side) -> Said:
    silent = side.count(lambda trace: trace.answer is None and bool(trace.text.strip()) and _was_read(side, trace))
    if not side.half(silent):
        return None
    return (
        side.none_right,
        f"{of_n(silent, side)} contain no final answer that the grader {side.problem_set.grader!r} finds",
        "ask for the final answer in the prompt, such as: "
        rf"--{side.role}-prompt 'Question: {{question}}\nEnd with: the answer is ...\n'",
    )


def _was_read(side: Side, trace: Trace) -> bool:
    return not trace.truncated and not side.unclosed(trace)


def _not_graded(side: Side) -> Said:
    failed = side.count(lambda trace: trace.failed)
    if not side.half(failed):
        return None
    return (
        side.none_right,
        f"{of_n(failed, side)} could not be graded by {side.problem_set.grader!r}, such as {side.traces[0].answer!r}",
        "name another grader (--grader)",
    )


def _other_form(side: Side) -> Said:
    wrong = [
        (trace, problem, taken)
        for trace, problem in zip(side.traces, side.problems, strict=True)
        if trace.answer is not None and not trace.correct
        for taken in [_taken_by(trace.answer, problem)]
    ]
    alike = [(trace, problem, taken) for trace, problem, taken in wrong if taken]
    if not alike or 2 * len(alike) < len(wrong) or not side.half(len(alike)):
        return None
    trace, problem, _ = alike[0]
    graders = sorted({name for *_, names in alike for name in names} & set(GRADERS) - {side.problem_set.grader})
    said = f"{of_n(len(alike), side)} are wrong only in form: {trace.answer!r}, but {problem.answer!r} is known"
    if graders:
        return side.none_right, f"{said}; the grader {graders[0]!r} accepts it", f"try --grader {graders[0]}"
    return (
        side.none_right,
        said,
        f"ask in the prompt for the form of the known answers, such as: the answer is {problem.answer}",
    )


def _taken_by(answer: str, problem: Problem) -> list[str]:
    """The graders that accept a wrong answer; ``form`` if none does but its last number equals the known answer."""
    if problem.answer is None:
        return []
    # math-verify is not tried: it needs an own process and an extra dependency.
    names = [name for name in ("numeric", "exact") if GRADERS[name](answer, problem.answer)]
    last, known = (_NUMBER.findall(text) for text in (answer, problem.answer))
    same = bool(last) and len(known) == 1 and GRADERS["numeric"](last[-1], known[0])
    return names or (["form"] if same else [])


_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:/\d+)?")


def _goes_on(side: Side) -> Said:
    further = [
        trace.text[at:].strip().partition("\n")[0]
        for trace, at in zip(side.traces, side.continued, strict=True)
        if at is not None
    ]
    if not side.half(len(further)):
        return None
    right, before = side.count(lambda trace: trace.correct), side.right_before()
    return (
        before > 0 and not right,
        f"{of_n(len(further), side)} continue with another question, such as {further[0][:60]!r}, and are graded by "
        f"their last answer: {right} are right, and {before} would be right if they ended before that question",
        f"give {side.name} a prompt that makes it stop after its answer (--{side.role}-prompt)",
    )


def _header(side: Side) -> Said:
    begun = side.count(lambda trace: _ROLE.match(trace.text) is not None)
    if not side.half(begun):
        return None
    return (
        side.none_right,
        f"{of_n(begun, side)} begin with a turn header, {_first(side.traces)[:30]!r}: its chat template does not "
        "open the model's turn",
        f"end the prompt with that header (--{side.role}-prompt)",
    )


_ROLE = re.compile(r"\s*(?:<[^>\s]{1,30}>\s*)?(?:assistant|model|gpt|bot)[ \t]*(?::|\n|<)", re.IGNORECASE)


def _first(traces: Sequence[Trace]) -> str:
    return next(trace.text for trace in traces if _ROLE.match(trace.text))


def _nothing_right(seen: Seen) -> Said:
    side = seen.thinking
    if not side.none_right:
        return None
    n = sum(value is not None for value in side.correct)
    trace, problem = side.traces[0], side.problems[0]
    return (
        n >= ENOUGH,
        f"none of {n} answers of {side.name} is right; the first is {trace.answer!r}, but {problem.answer!r} is known",
        "compare the answers with the known ones: the problems may be too hard, the grader may be wrong (--grader), or "
        "the prompt may differ from that of its training (--thinking-prompt)",
    )


def _same_texts(seen: Seen) -> Said:
    if any(one.tokens != other.tokens for one, other in zip(seen.base.traces, seen.thinking.traces, strict=True)):
        return None
    n = len(seen.base.traces)
    asked = "" if seen.base.traces[0].prompt == seen.thinking.traces[0].prompt else ", although their prompts differ"
    why = "both are the same weights" if seen.same_weights else "their weights may be the same"
    return (
        n >= ENOUGH or not asked,
        f"both models write the same {n} texts{asked}: {why}",
        "name two different models, or give them different prompts",
    )


def _worse(seen: Seen) -> Said:
    ci, cut = seen.difference.ci, seen.thinking.traces.truncated
    if ci is None or ci[1] >= 0:
        return None
    more = cut > max(SOME_CUT, seen.base.traces.truncated)
    why = f"{cut:.0%} of its answers were cut" if more else "base and thinking model may be swapped"
    return (
        seen.difference.n >= ENOUGH,
        f"the thinking model is worse than the base model, by {_points(seen)}: {why}",
        _more_tokens(seen.thinking) if more else "check --base, --thinking and both prompts",
    )


def _solved(seen: Seen) -> Said:
    graded = [value for value in seen.base.correct if value is not None]
    right, ci = sum(graded), seen.difference.ci
    if not graded or right < _SOLVED * len(graded) or (ci is not None and ci[0] > 0):
        return None
    return (
        len(graded) >= ENOUGH,
        f"the base model alone solves {right} of {len(graded)} problems, which leaves no gap to recover",
        "name harder problems (--problems)",
    )


def _no_gap(seen: Seen) -> Said:
    value, n = seen.difference.value, seen.difference.n
    if value is None or value > 0:
        return None
    return (
        n >= ENOUGH,
        f"the thinking model solves no more of {n} problems than the base model: the difference is {_points(seen)}",
        "name other problems, or a thinking model that is better at them",
    )


def _unclear(seen: Seen) -> Said:
    ci = seen.difference.ci
    if seen.difference.value is None or (ci is not None and ci[0] > 0):
        return None
    return (
        False,
        f"{seen.difference.n} problems are too few to tell whether there is a gap: the difference is {_points(seen)}",
        f"look at more problems (--look {4 * seen.difference.n})",
    )


def _points(seen: Seen) -> str:
    ends = seen.difference.ci
    told = "" if ends is None else f" [{100 * ends[0]:.0f}, {100 * ends[1]:.0f}]"
    return f"{100 * (seen.difference.value or 0):.0f} points{told}".replace("-", "−")


def _sampled(side: Side) -> str:
    if side.sampling.greedy:
        return "sample it, for example with --temperature 0.6 --top-p 0.95"
    return "raise --temperature, or give it another prompt"


def _looping(n: int) -> str:
    return "none of which loops" if not n else f"{n} of which {'loops' if n == 1 else 'loop'}"


def _more_tokens(side: Side) -> str:
    return f"try --max-new-tokens {2 * side.max_new_tokens}"


def _other_prompt(side: Side) -> str:
    chat = side.model.config.prompt == "chat"
    if side.role == "base":
        return "give the base model another prompt (--base-prompt)"
    return f"give the thinking model {'a prompt of its own' if chat else 'its chat template'} (--thinking-prompt)"


_NONE_RIGHT = "none of them is right"
_ENOUGH = f"{ENOUGH} or more problems were graded"
RULES = (
    Rule("empty answers", "at least half of the answers of a model are empty", _NONE_RIGHT, _ends_at_once),
    Rule("all cut", f"the limit on tokens cut at least {ALL_CUT:.0%} of its answers", _NONE_RIGHT, _all_cut),
    Rule(
        "some cut",
        f"the limit on tokens cut more than {SOME_CUT:.0%} of its answers, and more than one",
        "never",
        _some_cut,
    ),
    Rule("not closed", "the thinking of at least half of its answers is never closed", _NONE_RIGHT, _not_closed),
    Rule("turn header", "at least half of its answers begin with a turn header", _NONE_RIGHT, _header),
    Rule("no answer", "the grader finds no answer in at least half of its texts", _NONE_RIGHT, _no_answer),
    Rule("not graded", "the grader cannot grade at least half of its answers", _NONE_RIGHT, _not_graded),
    Rule("other form", "at least half of its answers are wrong only in form", _NONE_RIGHT, _other_form),
    Rule(
        "another question",
        "at least half of its answers continue with another question",
        "none is right, and some would be right without it",
        _goes_on,
    ),
    Rule(
        "same texts", "both models write the same texts", f"{_ENOUGH}, or the prompts are the same", of_pair=_same_texts
    ),
    Rule("nothing right", "no answer of the thinking model is right", _ENOUGH, of_pair=_nothing_right),
    Rule("worse", "the thinking model is worse, and the interval excludes 0", _ENOUGH, of_pair=_worse),
    Rule("solved", f"the base model solves at least {_SOLVED:.0%} of the problems", _ENOUGH, of_pair=_solved),
    Rule("no gap", "the thinking model has no more right answers", _ENOUGH, of_pair=_no_gap),
    Rule("unclear", "the thinking model has more, but the interval includes 0", "never", of_pair=_unclear),
)
"""All rules. Rules about one model come first; of the rules about both, only the first that applies gives a verdict."""
