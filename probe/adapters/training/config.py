"""What can be trained: the objectives and controls by name, the settings of an adapter, and the rows of a study."""

from dataclasses import dataclass

from probe.config import check_above_zero, check_least, nearest
from probe.errors import ProbeError

#: The objectives by name, each with its target.
OBJECTIVES = {
    "resa": "the base model's own predictions while an SAE's reconstruction is inserted, which is removed afterwards",
    "chen": "the same, and the SAE stays in the model",
    "steer-distil": "the predictions of the base model with chosen latents raised, and its state at the SAE's site",
    "source-distil": "another model's predictions",
    "feature-match": "another model's latents, or the base model's own raised, at the SAE's site",
    "ce": "the texts themselves",
}
#: What can be inserted at the SAE's site: the SAE, or a control in its place.
INSERTS = ("sae", "noise", "random-sae", "shuffled-decoder", "nothing")
#: Objectives that insert something while the adapter is trained.
INSERTING = ("resa", "chen")
#: Objectives that need chosen latents and reach only the blocks up to the SAE's site.
ON_LATENTS = ("steer-distil", "feature-match")
#: The row of an untrained random LoRA with the norms of the first row's.
RANDOM = "random"
_STOPPED = "-stopped"


@dataclass(frozen=True)
class AdapterPlan:
    """Where a LoRA is put and how large it is.

    Raises:
        ProbeError: if a setting is out of range.
    """

    layers: tuple[int, ...] = ()
    """0-based blocks that get a LoRA; empty takes all blocks that the objective's gradient reaches."""
    rank: int = 8
    """Rank of the LoRA on each linear layer."""
    alpha: float = 16.0
    """The LoRA's output is multiplied by alpha / rank."""
    dropout: float = 0.0
    """Dropout on the LoRA's input during training, from 0 to 1."""
    modules: tuple[str, ...] = ()
    """Names of the linear layers that get a LoRA, such as ``q_proj``; empty takes all linear layers of a block."""

    def __post_init__(self) -> None:
        check_least("plan", self, rank=1)
        check_above_zero("plan", self, "alpha")
        if not 0 <= self.dropout < 1:
            raise ProbeError(f"plan.dropout is {self.dropout}; it must be at least 0 and below 1")


@dataclass(frozen=True)
class TuneConfig:
    """How an adapter is trained."""

    steps: int = 1000
    """Maximum number of training steps. Training ends earlier, when the validation loss stops falling; one that reaches
    the maximum is reported as not converged."""
    batch_tokens: int = 2048
    """Minimum number of tokens in a step; texts are never cut."""
    pack_to: int = 512
    """Length in tokens of the rows into which texts are packed; it changes memory and speed, not the loss."""
    lr: float = 1e-3
    """Highest learning rate. It rises for ten steps, stays constant until the validation loss stops falling, and then
    falls to zero."""
    check_every: int = 25
    """Steps between two evaluations on the validation texts; each leaves a checkpoint."""
    patience: int = 50
    """The learning rate falls to zero after this many steps without progress."""
    seed: int = 0
    """Seeds the initial weights, the order of the texts, dropout and noise."""

    def __post_init__(self) -> None:
        check_least("tune", self, steps=1, batch_tokens=1, pack_to=1, check_every=1, patience=1)
        check_above_zero("tune", self, "lr")


@dataclass(frozen=True)
class Row:
    """One way to train an adapter, as named in a study: ``OBJECTIVE[-stopped][:INSERT]``.

    Attributes:
        name: the whole name.
        objective: one of :data:`OBJECTIVES`, or :data:`RANDOM`.
        through: whether gradients pass through what is inserted; not with ``-stopped``.
        insert: one of :data:`INSERTS`.
    """

    name: str
    objective: str
    through: bool = True
    insert: str = "sae"

    @classmethod
    def parse(cls, name: str) -> "Row":
        """Make a row from its name.

        >>> Row.parse("resa-stopped:noise")
        Row(name='resa-stopped:noise', objective='resa', through=False, insert='noise')

        Raises:
            ProbeError: if there is no such objective or insert, naming the nearest.
        """
        what, _, insert = name.partition(":")
        objective, insert = what.removesuffix(_STOPPED), insert or "sae"
        for part, known in ((objective, [*OBJECTIVES, RANDOM]), (insert, INSERTS)):
            if part not in known:
                raise ProbeError(f"rows has {name!r}: there is no {part!r}; {nearest(part, known)}")
        return cls(name, objective, not what.endswith(_STOPPED), insert)

    @property
    def inserts(self) -> bool:
        """Whether something is inserted while the adapter is trained."""
        return self.objective in INSERTING

    @property
    def needs_latents(self) -> bool:
        """Whether the objective needs chosen latents."""
        return self.objective in ON_LATENTS

    @property
    def control(self) -> str | None:
        """The name of the row with noise in the SAE's place; None if the row inserts nothing or is that row."""
        if not self.inserts or self.insert == "noise":
            return None
        return f"{self.objective}{'' if self.through else _STOPPED}:noise"
