"""The card of a behaviour: the result of each test, and the verdict by the fixed rule."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from probe.config import from_dict
from probe.html import html_table
from probe.statistics import Interval
from probe.taxonomy.falsify.config import FalsifyConfig
from probe.taxonomy.falsify.cues import Cue
from probe.taxonomy.falsify.regenerate import Stability

Verdict = Literal["state", "cue", "undecided"]


@dataclass(frozen=True)
class Trial:
    """One test of one behaviour: the share of changed sentences in which it fires, and the same for the control."""

    fired: Interval
    """The share of changed sentences in which the behaviour fires."""
    control: Interval
    """The same share under the control."""
    effect: Interval
    """``fired`` minus ``control`` over sentences that have both; without a value if the control has other sentences."""
    excluded: int = 0
    """The number of sentences that the change leaves empty, or that the tokenizer cannot write."""
    examples: tuple[str, ...] = ()
    """Some of the changed sentences."""
    unwritten: int = 0
    """How many of the excluded sentences the tokenizer cannot write."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """The tests of one behaviour and their verdict."""

    behaviour: int
    label: str
    sentences: int
    """The number of sentences in which it fires."""
    share: float
    """Their share of all sentences."""
    cues: tuple[Cue, ...]
    injection: Trial
    """Its cues in other sentences that have none of them; control: as many words of other sentences."""
    removal: Trial
    """Its own sentences without their cues; control: without as many other words."""
    paraphrase: Trial | None
    """Its own sentences in another wording; control: other sentences in another wording. None if not tried."""
    content: Trial
    """Its own sentences without the directions in which questions differ; control: without as many others."""
    stability: Stability
    """Its own sentences sampled again from the text before them."""
    verdict: Verdict
    reasons: tuple[str, ...]
    """The result of each test in words, the deciding ones first."""

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Card":
        """Rebuild a card from the result of :meth:`to_dict`.

        Raises:
            ProbeError: if ``data`` is not such a result.
        """
        return from_dict(cls, data, "card")

    def __repr__(self) -> str:
        return f"Card({self.behaviour}: {self.verdict}; {self.label}; {'; '.join(self.reasons)})"

    def _repr_html_(self) -> str:
        trials = [
            ("cue words inserted into other sentences", self.injection, "other words inserted"),
            ("cue words removed", self.removal, "other words removed"),
            ("in another wording", self.paraphrase, "others' sentences in another wording"),
            ("question content projected out", self.content, "as many other directions"),
        ]
        rows = [
            [name, _share(it.fired), _share(it.control), against, _signed(it.effect), "\n".join(it.examples[:2])]
            for name, it, against in trials
            if it is not None
        ]
        again = self.stability
        if again.mean is not None:
            shares = f"{again.mean:.0%} of samples", f"{again.expected:.0%}"
            rows.append(["sampled again", *shares, "chance", f"stable: {_share(again.stable)}", ""])
        where = f"{self.sentences} sentence{'' if self.sentences == 1 else 's'} ({self.share:.0%})"
        cues = ", ".join(f"{cue.text} ({cue.share:.0%}, elsewhere {cue.elsewhere:.0%})" for cue in self.cues) or "none"
        caption = [
            f"{self.behaviour}. {self.label}: {self.verdict}",
            f"{where if self.sentences else 'no sentence'}; cues: {cues}",
            *self.reasons,
        ]
        return html_table(["test", "fires", "control", "", "difference", "examples"], rows, "\n".join(caption))


def decide(
    injection: Trial, removal: Trial, paraphrase: Trial | None, content: Trial, config: FalsifyConfig
) -> tuple[Verdict, tuple[str, ...]]:
    """Decide by :attr:`FalsifyConfig.rule`.

    Returns:
        The verdict, and the result of each test in words, the deciding ones first.
    """
    findings = [_injection(injection, config), _removal(removal, config), _content(content, config)]
    if paraphrase is not None:
        findings.insert(2, _paraphrase(paraphrase, config))
    found: set[str | None] = {finding for finding, _ in findings}
    verdict: Verdict = "cue" if "cue" in found else "undecided" if "undecided" in found else "state"
    decided = [reason for finding, reason in findings if finding == verdict]
    return verdict, (*decided, *(reason for finding, reason in findings if finding != verdict))


def _share(interval: Interval) -> str:
    return f"{interval.write('{:.0%}'.format)} of {interval.n}" if interval.n else "none (not tried)"


def _signed(interval: Interval) -> str:
    return f"{interval.write('{:+.0%}'.format)} of {interval.n}" if interval.n else "none"


Finding = tuple[Verdict | None, str]
"""The verdict of one test (None if it has none) and its result in words."""


def _unwritten(trial: Trial) -> str | None:
    """Why a test without results has none, if it is the tokenizer."""
    if not trial.unwritten or trial.fired.n:
        return None
    return f"not tried, the tokenizer can write none of {trial.unwritten} changed sentences exactly"


def _injection(trial: Trial, config: FalsifyConfig) -> Finding:
    effect = trial.effect
    if effect.low is None or effect.high is None:
        if reason := _unwritten(trial):
            return "undecided", f"injection: {reason}"
        return "undecided", "injection: not tried, there is no cue word or no other sentence"
    fired, control = _share(trial.fired), _share(trial.control)
    numbers = f"fires in {fired} other sentences given its cue words, in {control} given other words"
    if effect.low > config.max_effect:
        return "cue", f"injection: {numbers}; its cue words are enough"
    if effect.high <= config.max_effect:
        return "state", f"injection: {numbers}; its cue words are not enough"
    return "undecided", f"injection: {numbers}; the difference {_signed(effect)} straddles {config.max_effect:.0%}"


def _removal(trial: Trial, config: FalsifyConfig) -> Finding:
    fired, effect = trial.fired, trial.effect
    if fired.low is None or fired.high is None:
        if reason := _unwritten(trial):
            return "undecided", f"removal: {reason}"
        return "undecided", "removal: not tried, none of its sentences has cue words and other words too"
    numbers = (
        f"{_share(fired)} of its sentences fire without their cue words, {_share(trial.control)} without as many "
        "other words"
    )
    if fired.low >= config.min_retention:
        return "state", f"removal: {numbers}; it does not need them"
    if fired.high < config.min_retention:
        if effect.high is not None and effect.high < -config.max_effect:
            return "cue", f"removal: {numbers}; it needs them"
        return "undecided", f"removal: {numbers}; removing any words may have this effect in short sentences"
    return "undecided", f"removal: {numbers}, which straddles {config.min_retention:.0%}"


def _paraphrase(trial: Trial, config: FalsifyConfig) -> Finding:
    fired, control = trial.fired, trial.control
    if fired.low is None or fired.high is None:
        if reason := _unwritten(trial):
            return None, f"paraphrase: {reason}"
        if not trial.excluded:
            return None, "paraphrase: not tried, it fires in no sentence"
        return None, f"paraphrase: not tried, none of {trial.excluded} sentences has a wording with fewer of its cues"
    numbers = f"{_share(fired)} of its sentences fire in another wording, {_share(control)} of others'"
    if fired.high < config.min_retention:
        return "cue", f"paraphrase: {numbers}; it depends on the wording"
    if fired.low >= config.min_retention and (control.high is None or fired.low > control.high):
        return "state", f"paraphrase: {numbers}; it survives another wording"
    return "undecided", f"paraphrase: {numbers}, which does not decide"


def _content(trial: Trial, config: FalsifyConfig) -> Finding:
    if trial.fired.high is None:
        return None, "content: not tried, it fires in no sentence or all sentences are of one question"
    numbers = (
        f"{_share(trial.fired)} of its sentences fire without the directions in which questions differ, "
        f"{_share(trial.control)} without as many others"
    )
    if trial.fired.high < config.min_retention:
        return "undecided", f"content: {numbers}; it depends on what the questions are about"
    return None, f"content: {numbers}"
