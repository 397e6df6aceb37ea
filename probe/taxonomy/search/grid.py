"""The candidates of a taxonomy (site, family, size) with their scores, and the rule that chooses one."""

from dataclasses import asdict, dataclass
from typing import Any

from probe.errors import ProbeError
from probe.html import html_table
from probe.taxonomy.config import TaxonomyConfig
from probe.taxonomy.sae.weights import Weights
from probe.taxonomy.search.scores import mean


@dataclass(frozen=True)
class Candidate:
    """One family with one number of behaviours at one site: scores on validation sentences, as means over seeds."""

    site: str
    family: str
    size: int
    seeds: tuple[int, ...]
    variance_explained: tuple[float, ...]
    """One value for each seed. A family without a reconstruction predicts the mean of a sentence's behaviour."""
    stability: float | None
    """Mean cosine of directions matched one to one between seeds; None for one seed."""
    agreement: float | None
    """Mean adjusted mutual information of assignments between seeds; None for one seed."""
    silhouette: float | None
    """By cosine distance."""
    decodability: float | None
    """Macro F1 of a linear probe on activations."""
    centroid_f1: float | None
    """Macro F1 of the nearest mean."""
    text_f1: float | None
    """Macro F1 of a classifier on words. The choice ignores it: what words alone predict may be a surface cue."""
    ami: tuple[float | None, ...]
    """Adjusted mutual information with the true types, for each seed; the choice ignores it."""
    used: tuple[int, ...]
    """How many behaviours occur among validation sentences, for each seed."""

    @property
    def score(self) -> float:
        """The mean of the five scores that :attr:`TaxonomyConfig.rule` names, leaving out those that are None."""
        five = (mean(self.variance_explained), self.silhouette, self.stability, self.agreement, self.centroid_f1)
        return mean(five) or 0.0

    def stable(self, least: float) -> bool:
        """Whether stability and agreement are both at least ``least``; a single seed has neither and passes."""
        return all(score is None or score >= least for score in (self.stability, self.agreement))


@dataclass(frozen=True, repr=False)
class Grid:
    """All candidates, and the SAEs of the taxonomy's own family.

    Attributes:
        candidates: those of the taxonomy's own family and of the baselines.
        weights: the SAEs of the taxonomy's own family, by site, size and seed.
        config: the settings of the search.
    """

    candidates: tuple[Candidate, ...]
    weights: dict[tuple[str, int, int], Weights]
    config: TaxonomyConfig

    @property
    def own(self) -> list[Candidate]:
        """The candidates of the taxonomy's own family. Baselines are only compared with and never chosen."""
        return [each for each in self.candidates if each.family == self.config.family]

    def choose(self, site: str | None = None, size: int | None = None) -> Candidate:
        """Choose a candidate by :attr:`TaxonomyConfig.rule`.

        Args:
            site: choose only among candidates at this site; None for all.
            size: choose only among candidates with this many behaviours; None for all.

        Raises:
            ProbeError: if no candidate has that site and size.
        """
        own = [each for each in self.own if site in (None, each.site) and size in (None, each.size)]
        if not own:
            known = ", ".join(f"{each.size} at {each.site}" for each in self.own)
            wanted = f"{size or 'any number of'} behaviours at {site or 'any site'}"
            raise ProbeError(f"no candidate has {wanted}; there are {known}")
        stable = [each for each in own if each.stable(self.config.stable)] or own
        least = max(each.score for each in stable) - self.config.margin
        return min((each for each in stable if each.score >= least), key=lambda each: (each.size, -each.score))

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return a dictionary for each candidate: the scores as means over seeds, and ``…_by_seed`` beside them."""
        chosen = self.choose()
        return [
            asdict(each)
            | {
                "seeds": list(each.seeds),
                "used": list(each.used),
                "variance_explained": mean(each.variance_explained),
                "variance_explained_by_seed": list(each.variance_explained),
                "ami": mean(each.ami),
                "ami_by_seed": list(each.ami),
                "score": each.score,
                "passes": each.stable(self.config.stable),
                "chosen": each is chosen,
            }
            for each in self.candidates
        ]

    def __repr__(self) -> str:
        sites = dict.fromkeys(each.site for each in self.candidates)
        families = dict.fromkeys(each.family for each in self.candidates)
        return f"Grid({len(self.candidates)} candidates: {', '.join(sites)}; {', '.join(families)})"

    def _repr_html_(self) -> str:
        names = ("site", "family", "size", "score", "variance_explained", "silhouette", "stability", "agreement")
        names += ("text_f1", "decodability", "centroid_f1", "ami")
        rows = [["✓" if row["chosen"] else "", *(_shown(row[name]) for name in names)] for row in self.to_dicts()]
        return html_table(["chosen", *(name.replace("_", " ") for name in names)], rows, repr(self))


def _shown(value: Any) -> Any:
    return f"{value:.2f}" if isinstance(value, float) else value
