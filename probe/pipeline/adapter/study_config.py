"""The configuration of a study of objectives: one frozen dataclass, which is also the YAML file."""

from dataclasses import dataclass, field

from probe.adapters import RANDOM, Row
from probe.config import check_seeds
from probe.errors import ProbeError
from probe.pipeline.adapter.config import AdapterConfig
from probe.pipeline.adapter.sae import SAEConfig


@dataclass(frozen=True)
class StudyConfig:
    """Everything ``probe adapter study`` can be told."""

    adapter: AdapterConfig
    """Model, texts, plan and training, the same for every row; its objective, insert and seeds are the rows'."""
    rows: tuple[str, ...] = (
        "resa",
        "resa:noise",
        "resa:random-sae",
        "resa:shuffled-decoder",
        "resa-stopped",
        "resa-stopped:noise",
        "ce",
        RANDOM,
    )
    """OBJECTIVE, or OBJECTIVE-stopped (no gradient through what is inserted), with :INSERT for a control; and random,
    a LoRA as large as the first row's that nobody trained. A run also has source-distil."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """A training each, with data order, first weights, noise and control SAEs of its own."""
    sae: SAEConfig = field(default_factory=SAEConfig)
    """Trained where ``adapter.sae`` names none; a taxonomy's few latents are no stand-in for a state."""

    def __post_init__(self) -> None:
        check_seeds("seeds", self.seeds)
        if not self.rows or self.rows[0] == RANDOM:
            raise ProbeError("rows is to begin with a row that is trained, as resa")
        for name in self.rows:
            Row.parse(name)
