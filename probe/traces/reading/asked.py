"""Which problem a rollout answers: found by its name, its question or its prompt."""

import contextlib
from collections.abc import Iterable
from dataclasses import replace

from probe.errors import ProbeError
from probe.models import Model
from probe.problems import SPLITS, Problem, ProblemSet
from probe.traces.reading.raw import Raw, Reject

_MARK = "THE-QUESTION-9F3A"
"""A placeholder question that occurs in no prompt."""


def words(text: str) -> str:
    """The words of a text, by which questions are compared."""
    return " ".join(text.split())


class Asked:
    """Finds the question of a rollout, and its problem.

    Args:
        model: the model whose prompt is recognised in raw prompts.
        problem_set: the problems; None if they are made from the rollouts.

    Attributes:
        by_id: the problems by their ids.
    """

    def __init__(self, model: Model, problem_set: ProblemSet | None) -> None:
        self._model, self.problem_set = model, problem_set
        some: Iterable[tuple[str, Problem]] = ()
        if problem_set is not None:
            some = ((split, problem) for split in SPLITS for problem in problem_set.splits.get(split, ()))
        self.by_id: dict[str, Problem] = {}
        self._by_words: dict[str, Problem] = {}
        self._splits: dict[str, str] = {}
        for split, problem in some:
            self.by_id[problem.id] = problem
            self._by_words.setdefault(words(problem.question), problem)
            self._splits[problem.id] = split
        self._around = [""]
        with contextlib.suppress(ProbeError):
            self._around = model.prompt_text(_MARK).split(_MARK)

    def split(self, problem: Problem) -> str | None:
        """The split of a problem; None if the set does not have it."""
        return self._splits.get(problem.id)

    def question(self, raw: Raw) -> Raw:
        """The rollout with its question; a prompt that is only the question is removed.

        Raises:
            Reject: if its question cannot be found.
        """
        prompt = raw.prompt
        if prompt is None and raw.prompt_tokens is not None:
            try:
                prompt = self._model.decode(raw.prompt_tokens)
            except ProbeError:
                raise Reject("the model does not have the ids of its prompt; give the prompt or the question") from None
        if raw.question is not None and raw.question.strip():
            if prompt is not None and words(prompt) == words(raw.question):
                return replace(raw, prompt=None, prompt_tokens=None)
            return replace(raw, prompt=prompt)
        if prompt is None:
            if raw.problem_id in self.by_id:
                return replace(raw, question=self.by_id[str(raw.problem_id)].question)
            raise Reject("it has no question and no prompt")
        if words(prompt) in self._by_words or self._is_bare(prompt):
            return replace(raw, question=prompt, prompt=None, prompt_tokens=None)
        return replace(raw, prompt=prompt, question=self._inside(prompt))

    def _is_bare(self, prompt: str) -> bool:
        """Whether a prompt is only a question: a prompt made by a chat template would contain special tokens."""
        special = self._model.tokenizer.all_special_tokens
        return self._model.config.prompt == "chat" and not any(token in prompt for token in special)

    def _inside(self, prompt: str) -> str | None:
        """The question inside a raw prompt of the model's own template; None if the prompt has another form."""
        if len(self._around) != 2:
            return None
        head, tail = self._around
        start = self._model.decode(self._model.start_ids)
        for begin in dict.fromkeys((head, start + head, head.removeprefix(start))):
            inner = prompt.removeprefix(begin)
            if (not begin or inner != prompt) and inner.endswith(tail) and len(inner) > len(tail):
                return inner.removesuffix(tail)
        return None

    def problem(self, raw: Raw) -> Problem | None:
        """The problem of the set that a rollout answers; None if the set does not have it."""
        if raw.problem_id in self.by_id:
            known = self.by_id[str(raw.problem_id)]
            if raw.question is None or words(raw.question) == words(known.question):
                return known
        if raw.question is not None and (found := self._by_words.get(words(raw.question))):
            return found
        # The question may stand among instructions, in a user turn or in a raw prompt.
        within = words(raw.question or raw.prompt or "")
        inside = [question for question in self._by_words if len(question) > 20 and question in within]
        return self._by_words[max(inside, key=len)] if inside else None
