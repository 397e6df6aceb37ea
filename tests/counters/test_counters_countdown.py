"""The Countdown counter against a writer that knows what it does."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest

from probe import ProbeError
from probe.counters import HABITS, count_behaviours, count_countdown, countdown_problem
from probe.counters.equations import Sum, equations, read_sum, spell
from probe.traces import Sentence, Trace, split_sentences

VERIFICATION, BACKTRACKING, SUBGOAL, BACKWARD = HABITS
GIVEN, TARGET = (6, 61, 94, 4), 309

SPELT = {"*": ("*", "×", "\\times", "x"), "/": ("/", "÷"), "-": ("-", "−"), "+": ("+",)}
Step = tuple[Fraction, str, Fraction, Fraction]


def steps(part: Sum) -> list[Step]:
    """The equations that make an expression, innermost first."""
    if not part.parts:
        return []
    left, right = part.parts
    return [*steps(left), *steps(right), (left.value, part.symbol, right.value, part.value)]


class Writer:
    """Writes a trace on a problem, and keeps the true numbers of each habit."""

    def __init__(self, numbers: tuple[int, ...], target: int, solution: str, rng: random.Random) -> None:
        self.numbers, self.target, self.solution, self.rng = numbers, Fraction(target), solution, rng
        self.steps = steps(read_sum(solution))
        self.truth = Counter({habit: 0 for habit in HABITS})
        self.said: list[str] = []
        self.tried = [frozenset(step[:3]) for step in self.steps]

    def write(self) -> str:
        rng = self.rng
        if rng.random() < 0.6:
            self.say(
                "Okay, so I need to reach {t} from {all}.", "The target is {t}.", "Let me see which of {all} to use."
            )
        if rng.random() < 0.4:
            self.backwards()
        failed = [self.fail() for _ in range(rng.randint(0, 3))]
        if any(failed):
            # Without a word that the last attempt missed, only used-up numbers tell that this is a new one.
            self.truth[BACKTRACKING] += 1
        self.solve()
        return " ".join(self.said)

    def say(self, *wordings: str, **values: object) -> None:
        wording = self.rng.choice(wordings)
        listed = ", ".join(map(str, self.numbers))
        self.said.append(wording.format(t=self.target, all=listed, **values))

    def equation(self, step: Step) -> str:
        left, symbol, right, result = step
        if symbol in "+*" and self.rng.random() < 0.3:
            left, right = right, left
        spelt = self.rng.choice(SPELT[symbol])
        gap = self.rng.choice(("", " ")) if spelt in "*/+×÷" else " "
        relation = self.rng.choice((" = ", "=", " equals ", " gives ", " is ", " -> "))
        return f"{left}{gap}{spelt}{gap}{right}{relation}{result}"

    def fail(self) -> bool:
        """An attempt that misses the target; whether there was one."""
        attempt = self.draw_attempt()
        if attempt is None:
            return False
        if self.truth["attempts"]:
            self.truth[BACKTRACKING] += 1
        self.truth["attempts"] += 1
        for i, step in enumerate(attempt):
            lead = self.rng.choice(
                ("Let me try ", "Try ", "So ", "Then ", "") if i else ("Let me try ", "What about ", "")
            )
            last = i == len(attempt) - 1
            if not last or self.rng.random() < 0.5:
                self.said.append(f"{lead}{self.equation(step)}.")
                if last:
                    self.verdict(step[3])
            else:
                tail = self.rng.choice(
                    (", which is not {t}.", ", but that is too {side}.", " - not {t}.", ", and {r} ≠ {t}.", ", no.")
                )
                side = "high" if step[3] > self.target else "low"
                self.said.append(f"{lead}{self.equation(step)}{tail}".format(t=self.target, r=step[3], side=side))
                self.truth[VERIFICATION] += 1
        if self.rng.random() < 0.4:
            self.say("Let me try another combination.", "Let's start over.", "Let me try something else.")
        return True

    def verdict(self, result: Fraction) -> None:
        side = "high" if result > self.target else "low"
        self.say(
            "That is too {side}.",
            "{r} is not equal to {t}.",
            "That does not work.",
            "Not {t}.",
            "This isn't the target.",
            "{r} is far from {t}, so this fails.",
            r=result,
            side=side,
        )
        self.truth[VERIFICATION] += 1

    def draw_attempt(self) -> list[Step] | None:
        """One to three equations in a row whose results are like no other number in play."""
        taken = {Fraction(n) for n in self.numbers} | {self.target} | {step[3] for step in self.steps}
        for _ in range(50):
            free = [Fraction(n) for n in self.rng.sample(self.numbers, len(self.numbers))]
            value, attempt, seen = free.pop(), [], set(taken)
            for _ in range(self.rng.randint(1, min(3, len(free)))):
                other, symbol = free.pop(), self.rng.choice("+-*")
                result = {"+": value + other, "-": value - other, "*": value * other}[symbol]
                if result <= 1 or result in seen:
                    break
                attempt.append((value, symbol, other, result))
                seen.add(result)
                value = result
            else:
                made = [frozenset(step[:3]) for step in attempt]
                if not set(made) & set(self.tried):
                    self.tried += made
                    return attempt
        return None

    def backwards(self) -> None:
        """Undo the last step of the solution."""
        left, symbol, right, _ = self.steps[-1]
        if symbol not in "+-" or left in map(Fraction, self.numbers):
            return
        undone, inverse = left, {"+": "-", "-": "+"}[symbol]
        self.say(
            "Let's work backwards from the target: {t} {inverse} {right} = {undone}.",
            "Since the target is {t}, {t} {inverse} {right} = {undone} would do.",
            "Undoing the last step, {t} {inverse} {right} = {undone}.",
            inverse=inverse,
            right=right,
            undone=undone,
        )
        self.truth[BACKWARD] += 1

    def solve(self) -> None:
        rng = self.rng
        for i, step in enumerate(self.steps):
            result = step[3]
            last = i == len(self.steps) - 1
            if not last and rng.random() < 0.2:
                self.say(
                    "First, I want to reach {n}.",
                    "Let's aim for {n}.",
                    "If I can make {n}, I am close.",
                    "I need {n} next.",
                    n=result,
                )
                self.truth[SUBGOAL] += 1
            self.said.append(f"{rng.choice(('So ', 'Now ', '', 'Take '))}{self.equation(step)}.")
            if not last and rng.random() < 0.15:
                self.say("That is not {t} yet.", "{n} is still below or above {t}.", n=result)
                self.truth[VERIFICATION] += 1
        if rng.random() < 0.6:
            self.say("That matches the target.", "This works!", "{t} = {t} ✓", "Which is exactly the target.")
            self.truth[VERIFICATION] += 1
        if rng.random() < 0.4:
            again = ", ".join(self.equation(step) for step in self.steps)
            self.say("Let me double-check: {again}.", "{again}.", "To verify: {again}, and that works.", again=again)
            self.truth[VERIFICATION] += 1
        self.say(
            "The answer is {s} = {t}.", "<answer> {s} </answer>", "So the final expression is {s}.", s=self.solution
        )


@pytest.fixture(scope="module")
def problems() -> list[tuple[tuple[int, ...], int, str, str]]:
    """Numbers, target, solution and question of Countdown problems whose solution stays in whole positive numbers."""
    create = pytest.importorskip("reasoning_gym").create_dataset
    items = create("countdown", seed=3, size=160)
    found = []
    for i in range(len(items)):
        item = items[i]
        numbers, target = tuple(item["metadata"]["numbers"]), item["metadata"]["target"]
        solution = item["metadata"]["expression"]
        tree = read_sum(solution)
        values = [number.value for number in tree.numbers] if tree else []
        # One meaning for every number: nothing that is given or computed occurs twice.
        values += [step[3] for step in steps(tree)] if tree else []
        if (
            len(set(values)) == len(values)
            and all(v > 1 and v.denominator == 1 for v in values)
            and tree.value == target
        ):
            found.append((numbers, target, solution, item["question"]))
    return found


def test_counts_are_those_of_the_writer(problems) -> None:
    assert len(problems) > 60
    total = Counter()
    for seed in range(2):
        for number, (numbers, target, solution, _) in enumerate(problems):
            writer = Writer(numbers, target, solution, random.Random(1000 * seed + number))
            text = writer.write()
            truth = {habit: writer.truth[habit] for habit in HABITS}
            assert count_countdown(text, numbers, target) == truth, text
            total += writer.truth
    assert all(total[habit] > 40 for habit in HABITS)


def test_reads_every_question_of_reasoning_gym(problems) -> None:
    for numbers, target, _, question in problems:
        assert countdown_problem(f"Problem: {question}\nSolution:") == (numbers, target)


@pytest.mark.parametrize(
    ("text", "verification", "backtracking", "subgoals", "backward"),
    [
        ("94 * 4 = 376. 376 - 61 = 315. 315 - 6 = 309.", 0, 0, 0, 0),
        ("94 * 4 = 376. 94 * 4 - 61 = 376 - 61 = 315. 94*4 - 61 - 6 = 309.", 0, 0, 0, 0),
        # a side branch, although the first result was said to miss
        ("94 * 4 = 376, which is above 309. 61 + 6 = 67. 376 - 67 = 309. That matches the target.", 2, 0, 0, 0),
        # the same beginning without the join
        ("94 * 4 = 376, which is above 309. 61 + 6 = 67. I give up.", 1, 1, 0, 0),
        # used-up numbers, without a word
        ("94 + 61 = 155. 94 * 4 = 376. 376 - 61 - 6 = 309.", 0, 1, 0, 0),
        # back to an earlier result
        ("94 × 4 = 376. 376 - 61 = 315. 315 + 6 = 321, not 309. Back to 315: 315 - 6 = 309 ✓", 2, 1, 0, 0),
        # going on from what missed is no backtracking
        ("94 + 61 = 155, too low. 155 * 4 = 620, too high. 620 - 6 = 614.", 2, 0, 0, 0),
        ("94 + 61 + 4 + 6 = 165, not 309. 94*4 + 61 + 6 = 443, no. 94*4 - 61 - 6 = 309.", 2, 2, 0, 0),
        # the same verdict said twice; the same failed result computed again
        ("94 * 4 = 376. That is not 309. Too high! Let me recompute: 94 * 4 = 376.", 2, 0, 0, 0),
        ("94*4 = 370. Wait, 94*4 = 376. 376 - 61 = 315.", 1, 0, 0, 0),
        ("Is 94 + 61 = 309? No. Does 94*4 - 61 equal 309? It does not.", 2, 1, 0, 0),
        # how far a result is from the target
        ("94*4 = 376. 376 - 309 = 67. 61 + 6 = 67. 376 - 67 = 309.", 1, 0, 0, 0),
        ("Backwards: 309 + 6 = 315. 315 + 61 = 376. And 94 * 4 = 376. So (94*4) - 61 - 6 = 309.", 0, 0, 0, 2),
        ("I have to reach 309. I'll try to get close to 376. Subtract 61 to get 315.", 0, 0, 1, 0),
        ("Step 1: 94 * 4 = 376\nStep 2: 376 - 61 = 315\nStep 3: 315 - 6 = 309\n", 0, 0, 0, 0),
        ("", 0, 0, 0, 0),
        ("The sum 94 / 0 = 5 is nonsense, and 1 - - 2 (= is, too.", 0, 0, 0, 0),
        (f"Let's aim for {'9' * 5000}. 1 + 1 = {'9' * 5000}. {'1 + ' * 5000}1 = 5. {'(' * 500}1 + 1 = 2", 0, 0, 0, 0),
    ],
)  # fmt: skip
def test_by_hand(text: str, verification: int, backtracking: int, subgoals: int, backward: int) -> None:
    truth = (verification, backtracking, subgoals, backward)
    assert tuple(count_countdown(text, GIVEN, TARGET).values()) == truth


@pytest.mark.parametrize(
    ("text", "left", "stated", "denied"),
    [
        ("3 \\times (4 + 5) = 27", "((4+5)*3)", 27, False),
        ("$7 − 2$ is not 4", "(7-2)", 4, True),
        ("(6 ÷ 4 = 1.5)", "(6/4)", Fraction(3, 2), False),
        ("1,200 / 3, which gives 400.", "(1200/3)", 400, False),
        ("24 = 4 * 6", "(4*6)", 24, False),
        ("9 - 4 = 10 / 2 = 5", "(9-4)", 5, False),
    ],
)
def test_equations(text: str, left: str, stated: Fraction | int, denied: bool) -> None:
    (found,) = equations(spell(text))
    assert (str(found.left), found.stated, found.denied) == (left, stated, denied)


def test_traces_need_a_countdown_problem(make_countdown_trace: Callable[[str], Trace]) -> None:
    trace = make_countdown_trace(" 94 + 61 = 155, too low. 94 * 4 = 376.")
    assert count_behaviours([trace], "countdown").counts.tolist() == [[1, 1, 0, 0]]
    with pytest.raises(ProbeError, match=r"no Countdown problem was found in 'Mia has 3 cards\.'"):
        count_behaviours([trace, replace(trace, prompt="Mia has 3 cards.")], "countdown")


@pytest.fixture
def make_countdown_trace() -> Callable[[str], Trace]:
    def make(text: str) -> Trace:
        prompt = f"Using the numbers {list(GIVEN)}, create an equation that equals {TARGET}."
        sentences = tuple(Sentence(start, end, 0, 0) for start, end in split_sentences(text))
        return Trace("one", prompt, (), text, sentences, None, None, False, False)

    return make
