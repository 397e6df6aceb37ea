"""The four habits in traces of Countdown, from what is computed rather than from how it is announced.

The task of Countdown is to reach a target from given numbers, each used at most once. A trace is read as a sequence of
equations. The numbers in an equation (given numbers and results) show whether it continues or starts again, so three
habits depend mostly on numbers. Comparisons with the target and announced intermediate targets are read from the words
around the equations, with the vocabulary of ``countdown_words.py``.

- *verification*: a result is compared with the target (counted once for each result), or something computed in this
  attempt is computed again (counted once for each run of such equations, and not where the answer is given).
- *backtracking*: an equation does not use the latest result after that missed the target or was given up, or needs
  numbers that the current attempt has used up. A side branch that is joined again later does not count.
- *subgoal setting*: a number other than the target is announced as something to reach.
- *backward chaining*: an equation works with the target, or with a result of doing so, before the target is reached.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from probe.counters.countdown_words import AIM, CHECKING, GIVE_UP, GIVES_ANSWER, Comparison
from probe.counters.equations import Equation, Sum, equations, spell
from probe.counters.habits import BACKTRACKING, BACKWARD_CHAINING, SUBGOAL_SETTING, VERIFICATION
from probe.traces import split_sentences


def count_countdown(text: str, numbers: Iterable[int], target: int) -> dict[str, int]:
    """Count the four habits in a trace of Countdown.

    Args:
        numbers: the given numbers.
    """
    reading = _Reading(Counter(Fraction(number) for number in numbers), Fraction(target))
    text = spell(text)
    for start, end in split_sentences(text):
        reading.sentence(text[start:end])
    return reading.counts()


@dataclass(eq=False)
class _Result:
    value: Fraction
    form: str
    """How it was computed, written in given numbers."""
    leaves: Counter[Fraction]
    """The given numbers that it uses."""
    uses: tuple["_Result", ...]
    branch: int
    compared: bool = False
    missed: bool = False

    def line(self) -> list["_Result"]:
        """This result and all results that it was computed from."""
        line: dict[_Result, None] = {}
        left = [self]
        while left:
            newest = left.pop()
            line[newest] = None
            left += [used for used in newest.uses if used not in line]
        return list(line)


@dataclass(frozen=True)
class _Made:
    """The results and given numbers of an expression."""

    uses: tuple[_Result, ...]
    leaves: Counter[Fraction]
    form: str

    @classmethod
    def joined(cls, symbol: str, *parts: "_Made") -> "_Made":
        forms = [part.form for part in parts]
        return cls(
            tuple(dict.fromkeys(used for part in parts for used in part.uses)),
            sum((part.leaves for part in parts), Counter()),
            f"({symbol.join(sorted(forms) if symbol in '+*' else forms)})",
        )


class _Reading:
    """The state of reading one trace."""

    def __init__(self, given: Counter[Fraction], target: Fraction) -> None:
        self.given, self.target = given, target
        self.results: list[_Result] = []
        self.branch = 0  # each start opens a branch with the next number; branches that are joined become one
        self.starts: set[int] = set()  # the branches that began with backtracking
        self.wanted: set[Fraction] = set()  # the results of working backwards
        self.says_check = self.rechecking = False
        self.verifications = self.subgoals = self.backward = 0
        self.comparison = Comparison(target)

    def counts(self) -> dict[str, int]:
        return {
            VERIFICATION: self.verifications,
            BACKTRACKING: len(self.starts),
            SUBGOAL_SETTING: self.subgoals,
            BACKWARD_CHAINING: self.backward,
        }

    def sentence(self, text: str) -> None:
        """Read the equations of a sentence and the words between them, from left to right."""
        self.subgoals += len({Fraction(aim["number"]) for aim in AIM.finditer(text)} - {self.target})
        gives_answer = GIVES_ANSWER.search(text) is not None
        at = 0
        for equation in equations(text):
            self._words(text[at : equation.start])
            self._equation(equation, gives_answer)
            at = equation.end
        self._words(text[at:])

    @property
    def _latest(self) -> _Result | None:
        return self.results[-1] if self.results else None

    @property
    def _attempt(self) -> list[_Result]:
        """The results of the current attempt, newest first."""
        return [each for each in reversed(self.results) if each.branch == self.branch]

    def _words(self, text: str) -> None:
        self.says_check = self.says_check or CHECKING.search(text) is not None
        latest = self._latest
        if latest is None:
            return
        if self.comparison.fits(text):
            self._compare(latest)
        if GIVE_UP.search(text) and latest.value != self.target:
            latest.missed = True

    def _compare(self, latest: _Result) -> None:
        if not latest.compared and not self.rechecking:
            self.verifications += 1
        latest.compared = True
        latest.missed = latest.value != self.target

    def _equation(self, equation: Equation, gives_answer: bool) -> None:
        left, latest = equation.left, self._latest
        if self._is_backward(left):
            if latest is not None and any(number.value == latest.value for number in left.numbers):
                self._compare(latest)  # how far it is from the target
            else:
                self.backward += 1
                self.wanted.add(equation.stated)
            return
        made = self._made_of(left)
        again = self._before(made.form)
        if again is not None:
            if not self.rechecking and not gives_answer:
                self.verifications += 1
                self.rechecking = True
            return
        self._place(made.uses, made.leaves)
        self.rechecking = self.says_check = False
        # A denied equation only says what an expression does not equal.
        value = left.value if equation.denied else equation.stated
        result = _Result(value, made.form, made.leaves, made.uses, self.branch)
        self.results.append(result)
        if equation.denied and equation.stated == self.target:
            self._compare(result)

    def _is_backward(self, left: Sum) -> bool:
        known = {result.value for result in self.results} | set(self.given)
        wanted = {self.target, *self.wanted} - known
        return any(number.value in wanted for number in left.numbers)

    def _made_of(self, left: Sum) -> _Made:
        """The results and given numbers of the left side of an equation."""
        free, taken = self.given - self._consumed(), list[_Result]()
        if not left.parts:
            return self._number(left.value, free, taken)
        parts = [self._part(part, free, taken) for part in left.parts]
        return _Made.joined(left.symbol, *parts)

    def _part(self, part: Sum, free: Counter[Fraction], taken: list[_Result]) -> _Made:
        """The same for a part of it, which may be a result of this attempt written out."""
        if not part.parts:
            return self._number(part.value, free, taken)
        made = _Made.joined(part.symbol, *(self._part(each, free, taken) for each in part.parts))
        same = next((each for each in self._attempt if each.form == made.form), None)
        return made if same is None else _Made((same,), same.leaves, same.form)

    def _number(self, value: Fraction, free: Counter[Fraction], taken: list[_Result]) -> _Made:
        used = self._standing_for(value, free, taken)
        if used is not None:
            taken.append(used)
            return _Made((used,), used.leaves, used.form)
        free[value] -= 1
        return _Made((), Counter([value] if value in self.given else []), str(value))

    def _standing_for(self, value: Fraction, free: Counter[Fraction], taken: list[_Result]) -> _Result | None:
        """The result that a number refers to: the latest, else one of this attempt, else the newest of earlier ones.

        A given number that is still free takes precedence over all but the latest result, and any given number takes
        precedence over earlier attempts.
        """
        now = [each for each in self._attempt if each.value == value and each not in taken]
        if now and now[0] is self._latest:
            return now[0]
        if free[value] > 0:
            return None
        before = [] if value in self.given else [each for each in reversed(self.results) if each.value == value]
        return next((each for each in [*now, *before] if each not in taken), None)

    def _before(self, form: str) -> _Result | None:
        """The result of this attempt that was computed in the same way; in a failed attempt, only during a check."""
        latest = self._latest
        if latest is None or latest.form == form:
            return latest
        if latest.missed and not self.says_check and not self.rechecking:
            return None
        return next((each for each in [*latest.line(), *self._attempt] if each.form == form), None)

    def _consumed(self) -> Counter[Fraction]:
        """The given numbers that the current attempt has used."""
        inner = {used for each in self._attempt for used in each.uses}
        return sum((each.leaves for each in self._attempt if each not in inner), Counter())

    def _place(self, uses: tuple[_Result, ...], leaves: Counter[Fraction]) -> None:
        """Decide whether an equation continues, joins an earlier branch or starts again."""
        latest = self._latest
        if latest is None:
            return
        if latest in uses:
            oldest = min(each.branch for each in uses)
            if leaves <= self.given:
                self._join(oldest)
            return
        fresh = leaves - sum((each.leaves for each in uses), Counter())
        here = all(each.branch == self.branch for each in uses)
        if latest.missed or not here or not fresh + self._consumed() <= self.given:
            self.branch += 1
            self.starts.add(self.branch)

    def _join(self, first: int) -> None:
        """Treat everything since the branch ``first`` as a side branch of it."""
        for result in self.results:
            if first < result.branch <= self.branch:
                result.branch = first
        self.starts = {start for start in self.starts if start <= first}
        self.branch = first
