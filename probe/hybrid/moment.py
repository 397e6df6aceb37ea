"""The state of one decoding step, and the four parts of an arm.

An arm has four exchangeable parts: *where* the base model is steered, *which* behaviour is added, *how strongly*, and
what a steered row *emits*. Each part sees only a :class:`Moment` and declares what it needs of the two models, so that
a model that no part asks is never run.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from probe.hooks import Runner, Step, likeliest
from probe.hybrid.closing import Closing
from probe.hybrid.past import History
from probe.models import PairSampling
from probe.traces import draw


@dataclass(frozen=True)
class Moment:
    """One decoding step of some rows, before anything is added.

    Attributes:
        base: the unsteered step of the base model: ``logits`` ``[rows, vocab]`` and, for each layer read, ``resid``
            ``[rows, d_model]``.
        thinking: the step of the thinking model on the same emitted text; None if no part of the arm asks it.
        counts: the number of tokens that each row has emitted.
        in_sentence: the number of tokens of the current sentence; 0 where the next token begins a sentence.
        sentence: for each layer, the mean of the thinking model's residual stream over the current sentence, beginning
            at the state that predicts its first token. Only for parts that need ``pooled``.
        random: uniform random numbers that depend only on seed, problem, sample and position; one column each for
            where, which and emit.
        keys: of the random numbers with which each row samples its tokens; all arms have the same.
        sampling: how tokens of the two models are sampled.
        runner, rows: the base model's batch, and the indices of these rows in it.
        history: what is known of the tokens that each row has emitted; None if no part needs it.
    """

    base: Step
    thinking: Step | None
    counts: Int[Tensor, " rows"]
    in_sentence: Int[Tensor, " rows"]
    sentence: dict[int, Float[Tensor, "rows d_thinking"]]
    random: Float[Tensor, "rows parts"]
    keys: Int[Tensor, " rows"]
    sampling: PairSampling
    runner: Runner
    rows: Int[Tensor, " rows"]
    history: History | None = None

    @property
    def asked(self) -> Step:
        """The step of the thinking model.

        Raises:
            RuntimeError: if the thinking model is not run, because no part of the arm declares that it asks it.
        """
        if self.thinking is None:
            raise RuntimeError(
                "the thinking model is not run for this arm; a part that reads it declares Needs(asks=...)"
            )
        return self.thinking

    @property
    def base_token(self) -> Int[Tensor, " rows"]:
        """The most likely token of the unsteered base model; −1 where its logits are not finite."""
        return likeliest(self.base.logits)

    @property
    def thinking_token(self) -> Int[Tensor, " rows"]:
        """The most likely token of the thinking model; −1 where its logits are not finite."""
        return likeliest(self.asked.logits)

    def draw(self, logits: Float[Tensor, "*rows vocab"]) -> Int[Tensor, "*rows"]:
        """Choose tokens from logits as the base model is sampled; −1 where they are not finite.

        Args:
            logits: of the base model, steered or not, ``[rows, vocab]`` or, where a row has several candidates,
                ``[rows, candidates, vocab]``. All candidates of a row have the same random number.
        """
        # Only what both models can read, as in the unsteered step.
        logits = logits[..., : self.base.logits.shape[-1]]
        keys, counts = (each.repeat_interleave(logits.shape[1:-1].numel()) for each in (self.keys, self.counts))
        return draw(logits.flatten(0, -2), keys, counts, self.sampling.base).view(logits.shape[:-1])

    def draw_thinking(self) -> Int[Tensor, " rows"]:
        """Choose the thinking model's token as that model is sampled; −1 where its logits are not finite."""
        return draw(self.asked.logits, self.keys, self.counts, self.sampling.thinking)

    def select(self, some: Int[Tensor, " some"]) -> "Moment":
        """Select some of the rows.

        Args:
            some: indices of the rows.
        """
        return replace(
            self,
            base=self.base[some],
            thinking=None if self.thinking is None else self.thinking[some],
            counts=self.counts[some],
            in_sentence=self.in_sentence[some],
            sentence={layer: state[some] for layer, state in self.sentence.items()},
            random=self.random[some],
            keys=self.keys[some],
            rows=self.rows[some],
            history=None if self.history is None else self.history[some],
        )

    def steered(self, shift: Float[Tensor, "rows d_model"], *, persistent: bool = False) -> Float[Tensor, "rows vocab"]:
        """Compute the base model's logits with a shift added at the steering layer to the newest token.

        Args:
            shift: what is added to each row.
            persistent: whether later tokens see the shifted states.
        """
        assert self.runner.steer is not None
        hidden = self.base.resid[self.runner.steer]
        return self.runner.rerun(hidden + shift.to(hidden.dtype), self.rows, persistent=persistent)

    def tried(
        self, shifts: Float[Tensor, "rows some d_model"], window: int | None = 1
    ) -> Float[Tensor, "rows some vocab"]:
        """Compute the base model's logits under several shifts of each row; no shift stays for later tokens.

        Args:
            shifts: what is added, several shifts for each row.
            window: the number of last tokens that are shifted; None shifts all tokens, including the prompt.
        """
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
    """What a part needs from the two models.

    Attributes:
        asks: what the part takes from the thinking model: ``token`` if it emits that model's token, ``choice`` if that
            model chooses among tokens of the base model, ``yes`` for anything else, and None if the part does not ask.
        base, thinking: the layers of each model whose residual stream the part reads.
        pooled: whether the part reads the mean over the current sentence.
        window: whether the part shifts more than the newest token.
        history: whether the part reads what was emitted before.
        closings: the closing tags that it looks for in that text.
    """

    asks: Literal["yes", "choice", "token"] | None = None
    base: frozenset[int] = frozenset()
    thinking: frozenset[int] = frozenset()
    pooled: bool = False
    window: bool = False
    history: bool = False
    closings: frozenset[Closing] = frozenset()


class Part:
    """The base class of the four kinds of parts. A part is a small frozen dataclass that can be called."""

    @property
    def needs(self) -> Needs:
        """What the part needs in addition to the base model's logits."""
        return Needs()

    @property
    def fitted(self) -> tuple[nn.Module, ...]:
        """The learned modules of the part."""
        return ()


class Where(Part):
    """A gate, which decides for each row whether to steer now."""

    @property
    def reads_base(self) -> bool:
        """Whether the gate reads the base model, which then runs at every token."""
        return True

    @abstractmethod
    def __call__(self, moment: Moment) -> Bool[Tensor, " rows"]: ...


class Which(Part):
    """Chooses the behaviour to add to each row."""

    @abstractmethod
    def __call__(self, moment: Moment) -> Int[Tensor, " rows"]: ...


class HowStrongly(Part):
    """Chooses the strength for each row."""

    @abstractmethod
    def __call__(self, moment: Moment, behaviour: Int[Tensor, " rows"], /) -> Float[Tensor, " rows"]: ...


@dataclass(frozen=True)
class Emitted:
    """The tokens that steered rows emit.

    Attributes:
        tokens: the next token of each row.
        choice: the index of the chosen candidate; None if there was only one candidate.
    """

    tokens: Int[Tensor, " rows"]
    choice: Int[Tensor, " rows"] | None = None


class Emit(Part):
    """Computes the next token of the steered rows from their behaviours and strengths."""

    @property
    def steers(self) -> int | None:
        """The layer of the base model that the part shifts; None if it shifts nothing."""
        return None

    @property
    def reads_base(self) -> bool:
        """Whether the token of a steered row depends on the base model."""
        return True

    @property
    def draws_thinking(self) -> bool:
        """Whether the token of a steered row is sampled as the thinking model is."""
        return False

    @abstractmethod
    def __call__(
        self, moment: Moment, behaviour: Int[Tensor, " rows"], strength: Float[Tensor, " rows"], /
    ) -> Emitted: ...


@dataclass(frozen=True)
class Arm:
    """One row of an experiment, made of four parts.

    Attributes:
        name: how results and reports call the arm.
        where: at which tokens the base model is steered.
        which: which behaviour is added there.
        how_strongly: the strength with which it is added.
        emit: what a steered row emits.
    """

    name: str
    where: Where
    which: Which
    how_strongly: HowStrongly
    emit: Emit

    @property
    def parts(self) -> dict[str, Part]:
        """The four parts, by name."""
        return {name: getattr(self, name) for name in ("where", "which", "how_strongly", "emit")}

    @property
    def asks(self) -> tuple[str, ...]:
        """The parts that ask the thinking model, for example ``where``, ``which`` or ``emit:choice``."""
        found = ((name, part.needs.asks) for name, part in self.parts.items())
        return tuple(name if what == "yes" else f"{name}:{what}" for name, what in found if what is not None)

    def samples(self, sampling: PairSampling) -> int:
        """The number of answers to each problem: one if everything that the arm emits is greedy."""
        drawn = [sampling.base, *([sampling.thinking] if self.emit.draws_thinking else [])]
        return sampling.number(*drawn)

    @property
    def relieves_base(self) -> bool:
        """Whether the base model is not needed at steered tokens: their position and token come from elsewhere."""
        return not (self.where.reads_base or self.emit.reads_base)

    @property
    def fitted_parameters(self) -> int:
        """The number of fitted parameters of all parts together."""
        modules = {id(module): module for part in self.parts.values() for module in part.fitted}
        return sum(parameter.numel() for module in modules.values() for parameter in module.parameters())
