"""What is known at one decoding step, and what a part of a hybrid is.

An arm is four exchangeable parts: *where* the base model is steered, *which* behaviour is added, *how strongly*, and
what a steered row then *emits*. Each looks at a :class:`Moment` and nothing else, and says what it needs of the two
models, so that a model which nobody asks is never run.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from probe.hooks import Runner, Step


@dataclass(frozen=True)
class Moment:
    """One decoding step of some rows, before anything is added.

    Attributes:
        base: the base model's unsteered step: ``logits`` ``[rows, vocab]`` and, per layer read, ``resid``
            ``[rows, d_model]``.
        thinking: the thinking model's on the same emitted text; None where no part of the arm asks it.
        counts: how many tokens each row has emitted.
        in_sentence: how many tokens of the sentence under way; 0 where the next token begins one.
        sentence: per layer, the mean of the thinking model's residual stream over the sentence under way, from the
            token that its first is predicted at; only for parts that pool.
        draws: uniform random numbers, fixed by seed, problem and position: one column each for where, which and emit.
        runner, rows: the base model's batch, and where these rows are in it.
    """

    base: Step
    thinking: Step | None
    counts: Int[Tensor, " rows"]
    in_sentence: Int[Tensor, " rows"]
    sentence: dict[int, Float[Tensor, "rows d_thinking"]]
    draws: Float[Tensor, "rows parts"]
    runner: Runner
    rows: Int[Tensor, " rows"]

    @property
    def asked(self) -> Step:
        """The thinking model's step.

        Raises:
            RuntimeError: if it is not run, because no part of the arm says that it asks it.
        """
        if self.thinking is None:
            raise RuntimeError("the thinking model is not run for this arm; a part that looks at it must say so (asks)")
        return self.thinking

    @property
    def base_token(self) -> Int[Tensor, " rows"]:
        """The base model's likeliest token."""
        return self.base.logits.argmax(-1)

    @property
    def thinking_token(self) -> Int[Tensor, " rows"]:
        """The thinking model's likeliest token."""
        return self.asked.logits.argmax(-1)

    def select(self, some: Int[Tensor, " some"]) -> "Moment":
        """The same moment for some of the rows."""
        return replace(
            self,
            base=self.base[some],
            thinking=None if self.thinking is None else self.thinking[some],
            counts=self.counts[some],
            in_sentence=self.in_sentence[some],
            sentence={layer: state[some] for layer, state in self.sentence.items()},
            draws=self.draws[some],
            rows=self.rows[some],
        )

    def steered(self, shift: Float[Tensor, "rows d_model"], *, persistent: bool = False) -> Float[Tensor, "rows vocab"]:
        """The base model's logits with a shift at its steering layer, added to the newest token."""
        assert self.runner.steer is not None
        hidden = self.base.resid[self.runner.steer]
        return self.runner.rerun(hidden + shift.to(hidden.dtype), self.rows, persistent=persistent)

    def tried(
        self, shifts: Float[Tensor, "rows some d_model"], window: int | None = 1
    ) -> Float[Tensor, "rows some vocab"]:
        """The logits under several shifts of each row, each added to its last ``window`` tokens (None: to all)."""
        assert self.runner.steer is not None
        some = shifts.shape[1]
        rows, flat = self.rows.repeat_interleave(some), shifts.flatten(0, 1)
        if window == 1:
            hidden = self.base.resid[self.runner.steer].repeat_interleave(some, 0)
            logits = self.runner.rerun(hidden + flat.to(hidden.dtype), rows, persistent=False)
        else:
            logits = self.runner.rerun_window(flat.to(self.base.resid[self.runner.steer].dtype), rows, window)
        return logits.unflatten(0, shifts.shape[:2])


@dataclass(frozen=True)
class Needs:
    """What a part looks at.

    Attributes:
        asks: what it takes from the thinking model, if it looks at it: ``token`` if it emits what that model says
            itself, ``choice`` if it chooses among tokens of the base model, ``yes`` otherwise.
        base, thinking: layers of the two models whose residual stream it reads.
        pooled: whether it reads the mean over the sentence under way.
        window: whether it shifts more than the newest token.
    """

    asks: Literal["yes", "choice", "token"] | None = None
    base: frozenset[int] = frozenset()
    thinking: frozenset[int] = frozenset()
    pooled: bool = False
    window: bool = False


class Part:
    """What all four parts say of themselves. A part is a small frozen dataclass that can be called."""

    @property
    def needs(self) -> Needs:
        """What it looks at, beside the base model's logits."""
        return Needs()

    @property
    def fitted(self) -> tuple[nn.Module, ...]:
        """What in it was learned."""
        return ()


class Where(Part):
    """A gate: at which rows to steer now."""

    @abstractmethod
    def __call__(self, moment: Moment) -> Bool[Tensor, " rows"]: ...


class Which(Part):
    """The behaviour to add, for each row."""

    @abstractmethod
    def __call__(self, moment: Moment) -> Int[Tensor, " rows"]: ...


class HowStrongly(Part):
    """The strength, for each row."""

    @abstractmethod
    def __call__(self, moment: Moment, behaviour: Int[Tensor, " rows"], /) -> Float[Tensor, " rows"]: ...


@dataclass(frozen=True)
class Emitted:
    """What steered rows emit.

    Attributes:
        tokens: the next token of each.
        choice: which of several candidates it was; None where there was one.
    """

    tokens: Int[Tensor, " rows"]
    choice: Int[Tensor, " rows"] | None = None


class Emit(Part):
    """The next token of the steered rows, given their behaviours and strengths."""

    @property
    def steers(self) -> int | None:
        """The layer of the base model that it shifts; None if it shifts nothing."""
        return None

    @abstractmethod
    def __call__(
        self, moment: Moment, behaviour: Int[Tensor, " rows"], strength: Float[Tensor, " rows"], /
    ) -> Emitted: ...


@dataclass(frozen=True)
class Arm:
    """One row of an experiment: where, which, how strongly, and what a steered row emits."""

    name: str
    where: Where
    which: Which
    how_strongly: HowStrongly
    emit: Emit

    @property
    def parts(self) -> dict[str, Part]:
        """The four parts by name."""
        return {name: getattr(self, name) for name in ("where", "which", "how_strongly", "emit")}

    @property
    def asks(self) -> tuple[str, ...]:
        """Which parts look at the thinking model; of the last also what for, as ``emit:choice``."""
        found = ((name, part.needs.asks) for name, part in self.parts.items())
        return tuple(name if what == "yes" else f"{name}:{what}" for name, what in found if what is not None)

    @property
    def fitted_parameters(self) -> int:
        """How many fitted numbers its parts have together."""
        modules = {id(module): module for part in self.parts.values() for module in part.fitted}
        return sum(parameter.numel() for module in modules.values() for parameter in module.parameters())
