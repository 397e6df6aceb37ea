import pytest
import torch

from probe.errors import ProbeError
from probe.taxonomy.judge.judge import ScriptedJudge
from probe.taxonomy.judge.names import Name, name_behaviours, parse_name

WORDS = ["adds", "checks", "plans"]


def corpus(n: int = 120) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """Sentences of three behaviours of four; the strength of each grows with its number."""
    behaviours = torch.arange(n) % 3
    letters = "abcdefghij"
    texts = [f" It {WORDS[i % 3]} {letters[i % 10]}{letters[i // 10 % 10]}{letters[i // 100]}." for i in range(n)]
    return texts, behaviours, torch.arange(n * 4.0).view(n, 4)


def parts(prompt: str) -> list[list[str]]:
    """The sentences of each list in a prompt."""
    blocks = [block.split("\n") for block in prompt.split("\n\n")]
    return [[line[2:] for line in block if line.startswith("- ")] for block in blocks if block[1:]][:-1]


def test_each_behaviour_with_sentences_is_named():
    texts, behaviours, strengths = corpus()

    def answer(prompt: str) -> str:
        word = next(word for word in WORDS if word in parts(prompt)[0][0])
        return f"**Title:** {word.title()} something\n**Description:** It {word}.\nNothing else."

    names = name_behaviours(ScriptedJudge(answer), texts, behaviours, strengths)
    assert names[:3] == [Name(f"{word.title()} something", f"It {word}. Nothing else.") for word in WORDS]
    assert names[3] == Name(None, None, failed=False)  # no sentences: not asked about


def test_the_prompt_shows_the_strongest_then_random_members_then_others():
    texts, behaviours, strengths = corpus()
    prompts: dict[int, list[str]] = {}
    for seed in (0, 1):
        prompts[seed] = []
        name_behaviours(
            ScriptedJudge(lambda prompt, to=prompts[seed]: to.append(prompt)), texts, behaviours, strengths, seed=seed
        )
    central, random, others = parts(prompts[0][1])
    own = [text.strip() for text, behaviour in zip(texts, behaviours.tolist(), strict=True) if behaviour == 1]
    assert central == own[::-1][:20]
    assert len(random) == 20 and set(random) <= set(own) - set(central)
    assert len(others) == 20 and not set(others) & set(own)
    assert any("plans" in line for line in others) and any("adds" in line for line in others)
    again = parts(prompts[1][1])
    assert again[0] == central and again[1:] != [random, others]


def test_sentences_that_differ_in_numbers_only_are_shown_once():
    texts = [f" Now {i} + 1." for i in range(30)] + ["\n\nThe plan:\nfirst this. " + "x" * 1000]
    prompts: list[str] = []
    behaviours = [0] * 31
    name_behaviours(ScriptedJudge(prompts.append), texts, behaviours, torch.arange(31.0)[:, None])
    (lines,) = parts(prompts[0])
    assert len(lines) == 2 and lines[0].startswith("The plan: first this.") and len(lines[0]) < 400


@pytest.mark.parametrize(
    "nonsense",
    [
        None,
        "",
        "I think these are calculations.",
        "Title: Sums",
        "Description: It sums.",
        "Title:\nDescription: It sums.",
        "Title: Sums\nDescription:  ",
        "Title: Sums\nTitle: Plans\nDescription: Either.",
        "Description: It sums.\nTitle: Sums",
        "Title: <two to five words>\nDescription: <two or three sentences>",
        "<think>Title: Sums\nDescription: It sums.",
    ],
)
def test_nonsense_names_nothing_and_is_counted(nonsense):
    texts, behaviours, strengths = corpus(30)
    judge = ScriptedJudge(lambda prompt: "Title: a\nDescription: b" if "checks aba" in parts(prompt)[0] else nonsense)
    names = name_behaviours(ScriptedJudge(lambda _: nonsense), texts, behaviours, strengths)
    assert names == [Name(failed=True)] * 3 + [Name()]
    assert sum(name.failed for name in name_behaviours(judge, texts, behaviours, strengths)) == 3


def test_the_forms_that_judges_use():
    expected = Name("Checking a result", 'Goes over a sum again, as in "is it so?"')
    for answer in (
        'Title: Checking a result\nDescription: Goes over a sum again, as in "is it so?"',
        'Sure!\n\n## Title: "Checking a result"\n\n## Description:\nGoes over a sum again,\nas in "is it so?"\n',
        'Title: a</think>**Title**: Checking a result\n**Description**: Goes over a sum again, as in "is it so?"',
    ):
        assert parse_name(answer) == expected


def test_what_does_not_fit_together_is_refused():
    texts, behaviours, strengths = corpus(6)
    judge = ScriptedJudge(lambda _: None)
    with pytest.raises(ProbeError, match="5 sentences, 6 behaviours and 6 rows"):
        name_behaviours(judge, texts[:5], behaviours, strengths)
    with pytest.raises(ProbeError, match="behaviours must be 0 to 1"):
        name_behaviours(judge, texts, behaviours, strengths[:, :2])
    strengths[2, 1] = float("nan")
    with pytest.raises(ProbeError, match="strengths of 1 sentences are not finite"):
        name_behaviours(judge, texts, behaviours, strengths)


def test_no_sentences_no_questions():
    names = name_behaviours(ScriptedJudge(lambda _: "x"), [], torch.zeros(0, dtype=torch.long), torch.zeros(0, 3))
    assert names == [Name()] * 3
