import random

import pytest
from hypothesis import example, given, strategies as st

from probe.organisms.documents import join, proceed, wander
from probe.problems.story.sentences import parse
from probe.problems.story.story import draw_story
from probe.traces import split_sentences

#: Text that is likely to be hard: stops, tags, line breaks, numbers, formulas, characters of one to four bytes.
HARD = st.lists(
    st.sampled_from(
        [
            ". ",
            ".",
            "! ",
            "? ",
            "\n",
            "\n\n",
            "\r\n",
            " ",
            "\t",
            "<think>",
            "</think>",
            "2. ",
            "3.14",
            "Dr. ",
            "k! ",
            "$",
            "$a. B$ ",
            "\\[x. Y\\]",
            "Wait",
            " no",
            "So ",
            "é",
            "中。",
            "👩‍👩‍👧",
            "\u2028",
            "\x1c",
            "…",
            '"',
            "(",
            ")",
            "=",
            "7",
            "A",
            "b",
        ]
    ),
    max_size=40,
).map("".join)


def pieces(text: str, **options: str) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text, **options)]


@given(st.one_of(st.text(), HARD))
@example("")
@example(" \n ")
@example("</think>")
@example("a\n\n</think> \n b.")
def test_nothing_is_lost(text: str) -> None:
    spans = split_sentences(text)
    assert all(start < end for start, end in spans)
    assert "".join(text[start:end] for start, end in spans) == text


@given(HARD)
def test_line_breaks_and_tags_begin_sentences(text: str) -> None:
    starts = {start for start, _ in split_sentences(text)}
    for at, _ in enumerate(text):
        if text.startswith(("</think>", "<think>"), at):
            before = len(text[:at].rstrip())
            assert before in starts
    for piece in pieces(text):
        assert "\n" not in piece.strip() or "$$" in piece or "\\[" in piece, "formulas may have several lines"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A is 3.14. Then Dr. Foo left.\nSo 2.", ["A is 3.14.", " Then Dr. Foo left.", "\nSo 2."]),
        ("Wait... no! It is 5.\n\nI see.\n", ["Wait... no!", " It is 5.", "\n\nI see.\n"]),
        (" 1. Add them. 2. Divide. Step 3. Stop.", [" 1. Add them.", " 2. Divide.", " Step 3. Stop."]),
        ("So $a. B$ holds. It costs $5. Then $6 more.", ["So $a. B$ holds.", " It costs $5.", " Then $6 more."]),
        ("Hm. ok </think> The answer is 4.", ["Hm.", " ok", " </think> The answer is 4."]),
        ("<think>\nFirst.</think>\n\nDone.", ["<think>", "\nFirst.", "</think>", "\n\nDone."]),
        ("There are 5! ways. So 5! It is.", ["There are 5! ways.", " So 5!", " It is."]),
    ],
)
def test_examples(text: str, expected: list[str]) -> None:
    assert pieces(text) == expected


#: One text a line, with ¦ between its sentences; ⏎ is a line end.
KEPT = r"""
**1.** Foo is here.¦ Then bar.
**Step 1.** Add them.¦ **Step 2.** Stop.
1. **Foo.**¦ Bar is 3.¦ Baz.
__2.__ Foo bar.¦ Then baz.
*3.* Foo bar.
- **a.** Foo.¦⏎- **b.** Bar.
> **2.** Foo.¦ Bar.
### 1. Title¦⏎Text.¦ More.
(1.) Foo bar.
2.1. Foo bar.¦ 2.2. Baz.
i. Foo bar.¦ ii. Baz.
Q1. What is it?¦ A1. That.
1.Foo 2.Bar
**Bold.**¦ Then plain.
*Wait.*¦ No.
So the answer is **42.**¦ Done.
We have $$x = 1. Y = 2$$ so done.¦ Next.
We have $$⏎x = 1. ⏎Y = 2⏎$$ so done.¦ Next.
So:¦⏎$$⏎x = 1.⏎$$¦⏎Then y.
So \[⏎x = 1.⏎Y⏎\] holds.¦ Next.
\[ x = 1. Y⏎z
So \[ x = 1. Y¦⏎⏎Then z.
\begin{align}⏎x &= 1. \⏎⏎y &= 2. Z⏎\end{align}¦⏎Done.
So $a. B$ and \(a. B\) hold.¦ Next.
So $x = 3.$¦ Then $y$.
It costs $5.¦ I pay $10.¦ Then go.
Code:¦⏎```python⏎x = 1.5⏎# A comment. Another.⏎⏎print(x)⏎```¦⏎Done.¦ Ok.
Code:¦⏎```⏎x = 1. Y⏎⏎z = 2. W
Code: ```py⏎a. B⏎``` Done.¦ Ok.
~~~⏎A. B⏎~~~¦⏎Done.
```⏎a. B¦⏎</think> The answer.¦ Is 3.
Use `a. B` here.¦ Then `x.y()`.¦ Done.
Use ``a` . B`` here.¦ Done.
| a | b |¦⏎|---|---|¦⏎| 1. X | 2. Y! Z |¦⏎Done.
|x| = 3.¦ So |y|
See https://a.b/c.¦ Then go.
See https://example.com/A.B?x=1!y.¦ It is.
Read www.a.com/x.Html, then go.¦ Ok.
It is 3.5.¦ Then 4.
It is .5 of 1,000.50.¦ Then 4.
He (e.g. Bob) left.¦ Then i.e. That and cf. This.
Eq. (2) and Fig. 3 hold.¦ So Thm. 4 holds, approx. 5 times.
Mr. Smith et al. (2020) say so.¦ Ok.
The U.S. Army came at 5 p.m. on May 5.¦ Then J. K. Rowling came.
He said "Stop."¦ Then left.
He said “Why?” and left.¦ Ok.
(It is so.)¦ Then it is (not 4.).¦ Ok.
[Stop.]¦ Then.
Wait... so so.¦ Hmm...¦ Then yes.
Hmm…¦ Then yes… or no.
Really??¦ Yes!!¦ What?!¦ No.
是的。¦答案是四。¦ 真的吗？¦是！
她说：“好。”¦然后走了。
「好。」¦他说。
x = Math.PI here.¦ Call System.out.println(x).¦ Ok.
There are 5! ways.¦ So 3! = 6.
So 🙂!¦ Then 5%.¦ Ok.
"""


@pytest.mark.parametrize("line", KEPT.strip().splitlines())
def test_what_belongs_together_is_kept_together(line: str) -> None:
    expected = line.replace("⏎", "\n").split("¦")
    assert pieces("".join(expected)) == expected


def test_other_tags() -> None:
    assert pieces("Hm. So ◁/go▷ The end. Yes.", think_close="◁/go▷") == ["Hm.", " So", " ◁/go▷ The end.", " Yes."]


def test_the_story_grammar_is_split_as_it_was_written() -> None:
    """Every sentence that the grammar writes comes back as one sentence, of its own type."""
    rng = random.Random(0)
    for _ in range(200):
        story = draw_story(rng, 5, 1)
        for written in (list(proceed(story, rng)), list(wander(story, rng))):
            found = [(parse(piece).type, piece.strip()) for piece in pieces(join(written))]
            assert found == [(kind, sentence.strip()) for kind, sentence in written]
