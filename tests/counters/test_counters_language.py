"""How well the rules for natural language do on sentences labelled by hand.

The first list was looked at while the rules were written. The second was written and labelled afterwards; the figures
of the docstrings are of its first measurement. Both are by the author of the rules, so they flatter them.
"""

from collections.abc import Sequence

import pytest

from probe import ProbeError
from probe.counters import EIGHT, HABITS, SIX, count_habits, habits_of, label_sentences

# Sentence; habits (v, b, s, c); the label of the six; the label of the eight. "-" for none.
_SIX = {"init": SIX[0], "ded": SIX[1], "know": SIX[2], "ex": SIX[3], "unc": SIX[4], "back": SIX[5], "-": None}
_EIGHT = {
    "setup": EIGHT[0], "plan": EIGHT[1], "fact": EIGHT[2], "comp": EIGHT[3], "unc": EIGHT[4], "sum": EIGHT[5],
    "check": EIGHT[6], "final": EIGHT[7], "-": None,
}  # fmt: skip
_HABIT = dict(zip("vbsc", HABITS, strict=True))

SEEN = """
Okay, so I need to find how many eggs are left. | - | init | setup
The problem says that the train leaves at noon. | - | init | setup
We are given a triangle with sides 3, 4 and 5. | - | init | setup
Alright, let me read the question once more. | - | init | setup
First, I need to find the area of the base. | s | - | plan
Let me break this problem down into smaller parts. | s | - | plan
The plan is to compute both volumes and then compare them. | s | - | plan
To solve this, I'll first work out the hourly rate. | s | - | plan
Next, I'll calculate the interest for the second year. | s | - | plan
Step 2: find the height of the tower. | s | - | plan
I recall that the angles of a triangle add up to 180 degrees. | - | know | fact
The formula for the area of a circle is pi times r squared. | - | know | fact
By definition, a prime number has exactly two divisors. | - | know | fact
There are 60 minutes in an hour. | - | know | fact
Fermat's little theorem states that a^p is congruent to a mod p. | - | know | fact
So 16 - 3 - 4 = 9 eggs are left. | - | ded | comp
9 * 2 = 18 dollars a day. | - | ded | comp
Then x = 12 / 4 = 3. | - | ded | comp
That gives 45 kilometres. | - | ded | comp
Therefore, the two lines never meet. | - | ded | sum
So we now have both lengths that we wanted. | - | ded | sum
This means that n is divisible by 6. | - | ded | sum
For example, if n = 4, the sum is 10. | - | ex | comp
Let's try a small case to see the pattern. | - | ex | plan
Suppose the first box holds all the coins. | - | ex | plan
Let me test this with n = 2. | v | ex | plan
Wait, that can't be right. | b | back | unc
Hmm, I am not sure about that. | - | unc | unc
Maybe I should use the law of cosines. | - | unc | unc
Actually, no, I made a mistake in the second line. | b | back | unc
Let's try a different approach. | b | back | unc
Alternatively, I could count the complement. | b | back | unc
That doesn't work, so let me go back to the equation. | b | back | unc
Scratch that. | b | back | unc
I think it might be 12. | - | unc | unc
Let me double-check the calculation. | v | unc | check
Checking: 9 times 2 is indeed 18. | v | unc | check
Plugging x = 3 back into the equation gives 12, as it should. | v | unc | check
Is that correct? | v | unc | check
Let me verify this with the original numbers. | v | unc | check
Let's work backwards from the final amount. | c | - | plan
To end up with 24, we need two numbers whose product is 24. | c | ded | plan
The answer is 18. | - | - | final
\\boxed{18} | - | - | final
**Final answer:** 42 | - | - | final
Tom likes cards a lot. | - | - | -
So the question is asking for the smallest such integer. | - | init | setup
Alright, so I've got this problem about two pipes that fill a tank. | - | init | setup
I'm asked to find the probability that both balls are red. | - | init | setup
Hmm, let me make sure that I understand what is being asked here. | - | init | setup
Janet sells each egg for two dollars, and I have to find her daily income. | - | init | setup
My approach will be to set up an equation for each person's age. | s | - | plan
I'll start by listing all the factors of 84. | s | - | plan
Let me handle the two cases separately. | s | - | plan
After that, we can turn to the second condition. | s | - | plan
Before I can find the total, I have to know the price of one ticket. | s | - | plan
We should simplify the left side first. | s | - | plan
I know that the sum of the first n odd numbers is n squared. | - | know | fact
A regular hexagon has six equal sides. | - | know | fact
Remember that log(ab) = log a + log b. | - | know | fact
Water boils at 100 degrees Celsius at sea level. | - | know | fact
The binomial theorem applies here. | - | know | fact
Multiplying both sides by 3 gives 6x = 42. | - | ded | comp
Adding 17 and 25, I get 42. | - | ded | comp
2^10 is 1024, and 1024 - 24 is 1000. | - | ded | comp
Half of 48 is 24. | - | ded | comp
Since both are even, their sum has to be even as well. | - | ded | sum
Putting these together, only one arrangement is left. | - | ded | sum
All in all, she spends 30 dollars on food and 12 on books. | - | ded | sum
Hence the function has no real roots. | - | ded | sum
Take a 3 by 3 grid, for instance. | - | ex | plan
If x were 5, the left side would be 31. | - | ex | comp
Let's plug in some values and see what happens. | - | ex | plan
Let's say the shirt costs 10 dollars before the discount. | - | ex | plan
Wait, I misread the problem. | b | back | unc
Hold on, the second pipe empties the tank. | b | back | unc
No, that contradicts the first condition. | b | back | unc
This is getting messy; perhaps there is a neater way. | - | unc | unc
I'm a bit confused about the wording. | - | unc | unc
It seems plausible, but I can't be sure. | - | unc | unc
Let me start over with a cleaner notation. | b | back | unc
Oh, I forgot to carry the one. | b | back | unc
Instead of adding, let me subtract the two equations. | b | back | plan
OK, that idea leads nowhere. | b | back | unc
Let me recompute that sum to be safe. | v | unc | check
Does this satisfy the second condition? | v | unc | check
Yes, 3 + 4 + 5 = 12, which agrees with the given perimeter. | v | ded | check
Just to confirm, 7 times 8 is 56. | v | unc | check
Substituting these values into the first equation, both sides are 10. | v | ded | check
It all checks out. | v | unc | check
For the product to be 36, one of the factors must be even. | c | ded | sum
Starting from the goal, the last move has to be a doubling. | c | ded | plan
We want to finish with 100, so before the last step we must have 50. | c | ded | sum
So the final result is 7/12. | - | ded | final
Therefore, Janet earns **18 dollars** every day, which is my answer. | - | ded | final
Thus, the answer should be 204. | - | ded | final
The cat sleeps on the sofa. | - | - | -
"""

UNSEEN = """
Okay, let's see what the problem wants from us. | - | init | setup
I need to figure out how many minutes Ana reads in a week. | - | init | setup
The problem gives us two equations with two unknowns. | - | init | setup
We're looking for all integers n such that n + 7 divides n^2. | - | init | setup
So, we have a rectangle whose length is twice its width. | - | init | setup
First, let's calculate the cost of the notebooks. | s | - | plan
Now I need to find the number of red marbles. | s | - | plan
Let me think step by step. | s | - | plan
I'll use the distance formula to find the length of AB. | - | know | plan
Let's consider the remainders modulo 7. | - | - | plan
Then we will subtract the cost of the pens. | s | - | plan
One way to do this is to list all the outcomes. | - | - | plan
I remember that the derivative of sin x is cos x. | - | know | fact
The sum of an arithmetic series is n times the average of its first and last terms. | - | know | fact
A dozen is 12. | - | know | fact
According to Vieta's formulas, the product of the roots is c/a. | - | know | fact
Since she works 5 days a week, that is 5 * 8 = 40 hours. | - | ded | comp
So, 3x + 5 = 20, and x = 5. | - | ded | comp
20% of 150 is 30. | - | ded | comp
Dividing both sides by 4, we get y = 9. | - | ded | comp
Subtracting 12 from 30 leaves 18. | - | ded | comp
So the remaining money is enough for two tickets. | - | ded | sum
Thus, both conditions are met. | - | ded | sum
It follows that the sequence is increasing. | - | ded | sum
Therefore, she needs three more hours. | - | ded | sum
For instance, 10 and 15 share the factor 5. | - | ex | fact
Let me try n = 3. | - | ex | plan
If I pick a = 2 and b = 5, the product is 10. | - | ex | comp
Wait, no, I should have used the larger radius. | b | back | unc
But wait, the question says "at least two". | b | back | unc
Hmm, that doesn't seem right. | b | back | unc
Maybe there is another way to look at this. | - | unc | unc
I'm not entirely sure if the order matters here. | - | unc | unc
Perhaps it's easier to count the opposite event. | - | unc | unc
Alternatively, we can solve it with similar triangles. | b | back | unc
I think I made an error when expanding the product. | b | back | unc
Let me go back and redo the second step. | b | back | unc
Let me check if 17 divides this number. | v | unc | check
To verify, 18 + 24 = 42. | v | unc | check
Let me double check by counting them again. | v | unc | check
Let me make sure I didn't miss a case. | v | unc | check
So that matches what we found before. | v | unc | check
Working backwards, before the last sale he had 40 apples. | c | ded | comp
To get 100 at the end, I need 50 before doubling. | c | ded | plan
Therefore, the answer is 72. | - | - | final
So the final answer is \\boxed{45}. | - | - | final
**Answer:** 3 hours | - | - | final
The weather was nice that day. | - | - | -
"""


def read(listed: str) -> tuple[list[str], list[set[str]], list[str | None], list[str | None]]:
    rows = [tuple(cell.strip() for cell in line.split(" | ")) for line in listed.strip().splitlines()]
    texts, habits, six, eight = map(list, zip(*rows, strict=True))
    return (
        texts,
        [{_HABIT[letter] for letter in cell if letter != "-"} for cell in habits],
        [_SIX[cell] for cell in six],
        [_EIGHT[cell] for cell in eight],
    )


def precision_recall(found: Sequence[set[str]], true: Sequence[set[str]]) -> tuple[float, float]:
    """Over all labels together."""
    right = sum(len(a & b) for a, b in zip(found, true, strict=True))
    return right / sum(map(len, found)), right / sum(map(len, true))


def measure(listed: str) -> dict[str, tuple[float, float]]:
    texts, habits, six, eight = read(listed)

    def labels(of: list[str | None]) -> list[set[str]]:
        return [set() if label is None else {label} for label in of]

    return {
        "habits": precision_recall([set(habits_of(text)) for text in texts], habits),
        "six": precision_recall(labels(label_sentences(texts, "six")), labels(six)),
        "eight": precision_recall(labels(label_sentences(texts, "eight")), labels(eight)),
    }


@pytest.mark.parametrize(
    ("listed", "floors"),
    [
        (SEEN, {"habits": (0.99, 0.99), "six": (0.94, 0.94), "eight": (0.95, 0.9)}),
        (UNSEEN, {"habits": (0.93, 0.88), "six": (0.8, 0.8), "eight": (0.94, 0.84)}),
    ],
    ids=["seen", "unseen"],
)
def test_precision_and_recall(listed: str, floors: dict[str, tuple[float, float]]) -> None:
    for scheme, (precision, recall) in measure(listed).items():
        assert precision >= floors[scheme][0], scheme
        assert recall >= floors[scheme][1], scheme


def test_every_label_is_found_somewhere() -> None:
    texts = read(SEEN)[0]
    assert {habit for text in texts for habit in habits_of(text)} == set(HABITS)
    assert set(label_sentences(texts, "six")) == {*SIX, None}
    assert set(label_sentences(texts, "eight")) == {*EIGHT, None}


def test_a_sentence_counts_once_for_each_habit() -> None:
    text = "Wait, let me check. Let me double-check, verify and make sure. The cat sleeps."
    assert count_habits(text) == {
        "verification": 2,
        "backtracking": 1,
        "subgoal setting": 0,
        "backward chaining": 0,
    }
    assert set(count_habits("").values()) == {0}


@pytest.mark.parametrize("text", ["", " ", "\n", "§", "((((", "a" * 10_000, "No, " * 2000, "let me " * 2000])
def test_any_text_is_labelled(text: str) -> None:
    assert len(label_sentences([text], "six")) == len(label_sentences([text], "eight")) == 1
    habits_of(text)


def test_agreeing_is_no_backtracking() -> None:
    for text in ("Yes, that's right.", "That is correct.", "Waiting costs nothing.", "The answer is right."):
        assert "backtracking" not in {*habits_of(text), *label_sentences([text], "six")}
    assert "backtracking" in habits_of("No, that’s wrong.")


def test_unknown_scheme_names_the_nearest() -> None:
    with pytest.raises(ProbeError, match=r"unknown scheme of sentence labels 'eigth'; did you mean 'eight'\?"):
        label_sentences(["So."], "eigth")
