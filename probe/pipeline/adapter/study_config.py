"""The configuration of a study of objectives: one frozen dataclass, which is also the YAML file."""

from dataclasses import dataclass, field

from probe.adapters import RANDOM, Row
from probe.config import check_seeds
from probe.errors import ProbeError
from probe.pipeline.adapter.config import AdapterConfig
from probe.pipeline.adapter.sae_config import SAEConfig
from probe.pipeline.checks import check_inputs


@dataclass(frozen=True)
class StudyConfig:
    """The settings of ``probe adapter study``.

    Raises:
        ProbeError: for an unknown row, or if the first row is not trained.
    """

    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    """Model, texts, plan and training, the same for every row; its objective, insert and seeds are ignored."""
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
    """Rows to train and measure: OBJECTIVE, or OBJECTIVE-stopped (no gradient through what is inserted), with :INSERT
    for a control; or ``random``, an untrained random LoRA with the norms of the first row's."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds of each row; each has its own text order, initial weights, noise and control SAEs."""
    sae: SAEConfig = field(default_factory=SAEConfig)
    """The SAE to train where ``adapter.sae`` names none; a taxonomy's few latents cannot reconstruct a state."""

    def __post_init__(self) -> None:
        check_seeds("seeds", self.seeds)
        if not self.rows or self.rows[0] == RANDOM:
            raise ProbeError("rows must begin with a row that is trained, such as resa")
        for name in self.rows:
            Row.parse(name)

    def check(self) -> None:
        """Refuse inputs that are not there; this imports no library that runs models."""
        check_inputs(self.adapter)
