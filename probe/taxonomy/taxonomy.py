"""A taxonomy: an SAE with its normaliser, labels, examples and scores."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probe.activations import Rows, by_rows, in_chunks
from probe.config import read_as
from probe.errors import ProbeError
from probe.files import read_tensors, write_json
from probe.html import html_table
from probe.models import Site, seeded
from probe.taxonomy.edits import Edits, write_template
from probe.taxonomy.sae.normaliser import Normaliser
from probe.taxonomy.sae.weights import Weights

if TYPE_CHECKING:
    from sae_lens import TopKSAE

#: The file in which people rename, describe and merge behaviours.
EDITS = "behaviours.yaml"
_SAID = ("labels", "examples", "titles", "descriptions")
_FIX = "fit the taxonomy again"


class _About(TypedDict):
    """``taxonomy.json``."""

    site: str
    model: str
    outlier_limit: float
    labels: list[str]
    examples: list[list[str]]
    titles: list[str | None]
    descriptions: list[str | None]


class _Config(TypedDict):
    """``cfg.json``, which SAELens wrote."""

    k: int


class _Candidate(TypedDict, total=False):
    """One candidate of the search, as far as a report shows it."""

    site: str
    family: str
    size: int
    seeds: list[int] | None
    passes: bool | None
    chosen: bool | None
    score: float | None
    variance_explained: float | None
    stability: float | None
    agreement: float | None
    silhouette: float | None
    decodability: float | None
    centroid_f1: float | None
    text_f1: float | None
    ami: float | None


class _Scores(TypedDict, total=False):
    """``scores.json``; a score that does not apply is None."""

    candidates: list[_Candidate]

    variance_explained: float | None
    stability: float | None
    agreement: float | None
    ami: float | None


def _tensors(path: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Read the encoder, the decoder and the mean of a taxonomy, and check that they fit each other."""
    tensors = read_tensors(path)
    missing = [name for name in ("W_enc", "W_dec", "b_dec") if name not in tensors]
    if missing:
        raise ProbeError(f"{path} lacks {missing[0]}; {_FIX}")
    encoder, decoder, mean = (tensors[name] for name in ("W_enc", "W_dec", "b_dec"))
    if encoder.ndim != 2 or not len(decoder) or decoder.shape != encoder.T.shape or mean.shape != encoder.shape[:1]:
        raise ProbeError(f"{path} holds tensors of shapes that do not fit each other; {_FIX}")
    if not all(each.dtype == torch.float32 and bool(each.isfinite().all()) for each in (encoder, decoder, mean)):
        raise ProbeError(f"{path} holds numbers that are not finite, or not float32; {_FIX}")
    return encoder, decoder, mean


class Taxonomy:
    """The behaviours of a thinking model. ``fit_taxonomy`` finds one, ``Taxonomy.load`` reads one.

    Every method takes raw activations of the model at :attr:`site`, as a tensor or as the rows of a store, which are
    read chunk by chunk; the normaliser is always applied.

    Attributes:
        site: where the activations come from, such as ``"resid_post.2"``.
        normaliser: centres and scales the activations.
        model_name: the model whose activations they are.
        labels: a few words for each behaviour.
        examples: for each behaviour, its nearest sentences.
        titles, descriptions: a judge's title and description of each behaviour; None where no judge was asked.
        edits: the names, notes and merges that people gave; see :class:`~probe.taxonomy.Edits`.
        scores: the quality of the taxonomy and how it was chosen: ``rule``, ``family``, ``size``, ``seed`` and
            ``score``; on validation data ``variance_explained``, ``silhouette``, ``ami`` (None without true types),
            ``type_f1``, the ``shares`` of the behaviours and, for each behaviour, ``decodability``, ``centroid_f1``
            and ``text_f1``; between seeds ``stability`` and ``agreement``; ``candidates``, all that was tried; and
            counts of sentences.
    """

    def __init__(
        self,
        site: str,
        normaliser: Normaliser,
        weights: Weights,
        *,
        model_name: str = "",
        labels: Sequence[str] = (),
        examples: Sequence[Sequence[str]] = (),
        titles: Sequence[str | None] = (),
        descriptions: Sequence[str | None] = (),
        edits: Edits | None = None,
        scores: dict[str, Any] | None = None,
    ) -> None:
        self.site = str(Site.parse(site))
        self.normaliser = normaliser
        self.labels = list(labels) or [f"behaviour {i}" for i in range(len(weights.decoder))]
        self.examples = [list(some) for some in examples] or [[] for _ in self.labels]
        self.scores = scores or {}
        self.model_name = model_name
        self.edits = edits or Edits.none(len(weights.decoder))
        self.titles = list(titles) or [None] * len(self.labels)
        self.descriptions = list(descriptions) or [None] * len(self.labels)
        self._weights = weights
        self._on = {weights.encoder.device: weights}

    @property
    def layer(self) -> int:
        """The 0-based layer whose output :attr:`site` is, where decoding reads the thinking model.

        Raises:
            ProbeError: if the site is not a ``resid_post``.
        """
        site = Site.parse(self.site)
        if site.kind != "resid_post" or site.layer is None:
            raise ProbeError(f"this taxonomy was fitted at {site}, but decoding reads only resid_post; fit one there")
        return site.layer

    @property
    def k_active(self) -> int:
        """The maximum number of latents active at once."""
        return self._weights.k

    @property
    def n_behaviours(self) -> int:
        """The number of behaviours."""
        return len(self._weights.decoder)

    @property
    def names(self) -> list[str]:
        """The name of each behaviour: the one that people gave, otherwise a judge's title, otherwise the label."""
        return self.edits.names([title or label for title, label in zip(self.titles, self.labels, strict=True)])

    @property
    def directions(self) -> Float[Tensor, "behaviour d_model"]:
        """The decoder's rows: for each behaviour, a unit direction in the thinking model's residual stream."""
        return self._weights.decoder

    @property
    def content(self) -> tuple[Any, ...]:
        """What assignments depend on: neither names nor scores."""
        # Whether training converged is not saved with the weights, and changes nothing.
        return self.site, self.normaliser, replace(self._weights, converged=True)

    def behaviour(self, x: Float[Tensor, "*batch d_model"] | Rows) -> Int[Tensor, "*batch"]:
        """Assign each raw activation the behaviour with the largest pre-activation; the result stays on its device."""
        return by_rows(lambda some: self._project(some).argmax(-1), x)

    def fires(self, x: Float[Tensor, "sentence d_model"] | Rows) -> Bool[Tensor, "sentence behaviour"]:
        """Mark the behaviour that each raw activation shows; an outlier shows none."""
        behaviours = self.behaviour(x)
        shown = behaviours[:, None] == torch.arange(self.n_behaviours, device=behaviours.device)
        return shown & self.normaliser.keep(x)[:, None]

    def pre_activations(self, x: Float[Tensor, "*batch d_model"] | Rows) -> Float[Tensor, "*batch behaviour"]:
        """Compute the pre-activation of each behaviour for raw activations."""
        return by_rows(self._project, x)

    def latents(self, x: Float[Tensor, "*batch d_model"] | Rows) -> Float[Tensor, "*batch behaviour"]:
        """Compute the SAE's latents for raw activations; at most ``k_active`` of each are not zero."""
        return by_rows(lambda some: self._weights_on(some).latents(self.normaliser(some)), x)

    def variance_explained(self, x: Float[Tensor, "sentence d_model"] | Rows) -> float:
        """Measure the share of the variance of normalised activations that the SAE reconstructs, without outliers."""

        def parts() -> Iterator[Tensor]:
            for chunk in in_chunks(x):
                self._check(chunk)
                yield self.normaliser(chunk[self.normaliser.keep(chunk)])

        count = sum(map(len, parts()))
        mean = sum(z.sum(0, dtype=torch.float64) for z in parts()) / count
        error = sum(float((self._weights_on(z).reconstruct(z) - z).square().sum()) for z in parts())
        return 1 - error / sum(float((z - mean).square().sum()) for z in parts())

    def _project(self, x: Tensor) -> Tensor:
        return self._weights_on(x).pre_activations(self.normaliser(x))

    def _weights_on(self, x: Tensor) -> Weights:
        self._check(x)
        if x.device not in self._on:
            own = self._weights
            self._on[x.device] = Weights(own.encoder.to(x.device), own.decoder.to(x.device), own.k)
        return self._on[x.device]

    def _check(self, x: Tensor) -> None:
        width = self._weights.decoder.shape[1]
        if not x.ndim or x.shape[-1] != width:
            raise ProbeError(f"the taxonomy reads states {width} wide at {self.site}; these have shape {list(x.shape)}")

    @cached_property
    def sae(self) -> "TopKSAE":
        """The SAE as an object of SAELens with the normaliser folded in: it reads and reconstructs raw activations.

        The trained SAE has no biases, so scaling its input only scales its latents and its output. Folding is therefore
        exact: the same latents are active, the reconstruction is the normalised one scaled and shifted back, and the
        latents are those of :meth:`latents` times the length of the centred activation.
        """
        from sae_lens import TopKSAE, TopKSAEConfig
        from sae_lens.saes.sae import SAEMetadata

        site = Site.parse(self.site)
        metadata = SAEMetadata(
            model_name=self.model_name or None,
            hook_name=site.lens,
            probe_site=self.site,
            probe_labels=self.labels,
            probe_normalisation=(
                "trained on activations minus their mean, each scaled to length one; both are folded in, so this SAE "
                "takes raw activations. Latents are those of the trained SAE times the length of the centred "
                "activation; which are active, and the reconstruction, are the same."
            ),
        )
        d_model, size = self._weights.encoder.shape
        config = TopKSAEConfig(d_in=d_model, d_sae=size, k=self.k_active, apply_b_dec_to_input=True, metadata=metadata)
        with seeded(0):  # the SAE begins with random weights, which are replaced
            sae = TopKSAE(config)
        with torch.no_grad():
            sae.W_enc.copy_(self._weights.encoder)
            sae.W_dec.copy_(self._weights.decoder)
            sae.b_dec.copy_(self.normaliser.mean)
        return sae.requires_grad_(False)

    def save(self, folder: str | Path) -> Path:
        """Save the taxonomy.

        ``cfg.json`` and ``sae_weights.safetensors`` hold :attr:`sae` as ``SAE.load_from_disk`` reads it.
        ``behaviours.yaml`` is a template in which people rename, describe and merge behaviours; an existing one is
        kept. ``scores.json`` holds the scores. ``taxonomy.json`` is written last, so a folder that has it is complete.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.sae.save_model(str(folder))
        write_json(folder / "scores.json", self.scores)
        write_template(folder / EDITS, self.labels)
        about = {"site": self.site, "model": self.model_name, "outlier_limit": self.normaliser.limit}
        said = {name: getattr(self, name) for name in _SAID}
        write_json(folder / "taxonomy.json", {**about, **said})
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "Taxonomy":
        """Load a saved taxonomy, with the edits that people have made in ``behaviours.yaml`` since.

        Args:
            folder: the folder that :meth:`save` wrote.

        Raises:
            ProbeError: if a file is missing or damaged, or ``behaviours.yaml`` is invalid.
        """
        folder = Path(folder)
        about = read_as(_About, folder / "taxonomy.json", fix=_FIX)
        encoder, decoder, mean = _tensors(folder / "sae_weights.safetensors")
        size, k = len(decoder), read_as(_Config, folder / "cfg.json", fix=_FIX)["k"]
        if not 1 <= k <= size:
            raise ProbeError(f"{folder / 'cfg.json'} has {k} active latents of {size}; {_FIX}")
        for name in _SAID:
            if len(about[name]) != size:
                raise ProbeError(
                    f"{folder / 'taxonomy.json'} has {len(about[name])} {name} of {size} behaviours; {_FIX}"
                )
        edits = folder / EDITS
        return cls(
            about["site"],
            Normaliser(mean, about["outlier_limit"]),
            Weights(encoder, decoder, k),
            model_name=about["model"],
            labels=about["labels"],
            examples=about["examples"],
            titles=about["titles"],
            descriptions=about["descriptions"],
            edits=Edits.read(edits, size) if edits.exists() else None,
            scores=read_as(_Scores, folder / "scores.json", fix=_FIX),
        )

    def __repr__(self) -> str:
        known = ("variance_explained", "stability", "agreement", "ami")
        scores = ", ".join(
            f"{name.replace('_', ' ')} {self.scores[name]:.2f}" for name in known if self.scores.get(name) is not None
        )
        return f"Taxonomy({self.n_behaviours} behaviours at {self.site}{', ' + scores if scores else ''})"

    def _repr_html_(self) -> str:
        blank = [None] * self.n_behaviours
        columns = [self.scores.get(name) or blank for name in ("shares", "text_f1", "centroid_f1")]
        rows = [
            [i, name, *(None if value is None else f"{value:.0%}" for value in values), "\n".join(some[:3])]
            for i, (name, some, *values) in enumerate(zip(self.names, self.examples, *columns, strict=True))
        ]
        head = ["", "behaviour", "share", "F1 from words", "F1 from the nearest mean", "nearest sentences"]
        return html_table(head, rows, repr(self))
