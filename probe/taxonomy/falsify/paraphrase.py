"""Other wordings of sentences, by a rule or by a judge."""

from collections.abc import Callable, Sequence

from probe.taxonomy.judge.judge import Judge

Paraphrase = Callable[[str], str | None]
"""Gives another wording of a sentence, or None if it has none."""
Rewrite = Callable[[Sequence[str], Sequence[str]], list[str | None]]
"""Gives other wordings of some sentences that avoid some words."""

_PROMPT = (
    "Say the following sentence of a worked solution in other words. Keep its meaning, and keep every number and "
    "formula as it is.{avoid} Answer with the new sentence alone, on one line.\n\nSentence: {sentence}"
)


def by_rule(paraphrase: Paraphrase) -> Rewrite:
    """Rewrite each sentence with a function, which ignores the words to avoid."""
    return lambda texts, _: [paraphrase(text) for text in texts]


def by_judge(judge: Judge) -> Rewrite:
    """Ask a judge to rewrite each sentence; an answer that is not one line of a plausible length is dropped."""

    def rewrite(texts: Sequence[str], avoid: Sequence[str]) -> list[str | None]:
        words = f" Do not use: {', '.join(avoid)}." if avoid else ""
        answers = judge.complete([_PROMPT.format(avoid=words, sentence=text.strip()) for text in texts])
        return [_line(answer, text) for answer, text in zip(answers, texts, strict=True)]

    return rewrite


def _line(answer: str | None, text: str) -> str | None:
    line = (answer or "").strip().removeprefix("Sentence:").strip().strip('"')
    plausible = line and "\n" not in line and len(line) <= 4 * len(text.strip()) + 40
    return line if plausible else None
