"""Directions that distinguish two kinds of text, and whether they transfer between the two models of a pair.

Truth (Marks and Tegmark, 2310.06824) is one such direction. Du et al. (2504.02904) transfer it from a base to a
post-trained model; Ward et al. (2507.12638) transfer the direction of a behaviour.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from probe.circuits import Pairs, logit_difference, rows_that_fit
from probe.errors import NotApplicable
from probe.hooks import Apply, Tokens, capture, edit
from probe.html import html_table
from probe.models import Model, Pair
from probe.statistics import write_p

MODELS = ("base", "thinking")
_LAST = 2
"""Number of tokens that are steered, at the end of a text."""
_LEAST = 4
"""The smallest number of pairs; half of them choose the layer."""
_SMALLEST = 1e-9
"""A shorter direction has no length, for example that of states that are all equal."""
_APART = 0.1
"""The smallest mean logit difference between clean and corrupt texts of which steering can restore a share."""


@dataclass(frozen=True)
class Direction:
    """A direction, with a threshold along it that separates clean from corrupt texts.

    Attributes:
        vector: mean state of the clean texts minus mean state of the corrupt texts.
        centre: mean of all states.
        layer: the layer of ``resid_post``, counted from 0.
        slope: slope of the logistic regression; :meth:`predict` uses its sign.
        threshold: position along the direction, from the centre, at which both kinds are equally likely.
    """

    vector: Float[Tensor, " d_model"]
    centre: Float[Tensor, " d_model"]
    layer: int
    slope: float
    threshold: float

    def predict(self, states: Float[Tensor, "rows d_model"]) -> Bool[Tensor, " rows"]:
        """Predict for each text whether it is clean.

        Args:
            states: the state of each text.
        """
        along = (states - self.centre) @ self.vector / self.vector.norm().clamp(min=_SMALLEST)
        return self.slope * (along - self.threshold) > 0

    def __repr__(self) -> str:
        return f"Direction(resid_post.{self.layer}, norm {float(self.vector.norm()):.3g})"


@dataclass(frozen=True)
class DirectionTransfer:
    """Each model's direction as a probe and for steering, in both models, on texts that were not used for fitting.

    The keys of the nested tables are ``base`` and ``thinking``: first the model that the direction comes from, then
    the model that it is used in.

    Attributes:
        layer: the layer of ``resid_post``, chosen by accuracy on a part of the texts used for fitting.
        accuracy: accuracy of the probe.
        p: for each model, the p-value of its own probe's accuracy against shuffled labels.
        cosine: cosine of the two directions.
        steered: share of the logit difference between clean and corrupt texts that adding the direction at the last
            tokens of corrupt texts restores; None if both kinds of text have the same continuation.
        random: for each model, the same for a random direction of the same norm.
        texts: number of texts for fitting, and for testing.
    """

    layer: int
    accuracy: dict[str, dict[str, float]]
    p: dict[str, float]
    cosine: float
    steered: dict[str, dict[str, float | None]]
    random: dict[str, float | None]
    texts: tuple[int, int]

    def __repr__(self) -> str:
        return f"DirectionTransfer(resid_post.{self.layer}, cosine {self.cosine:.2f})"

    def _repr_html_(self) -> str:
        def cell(value: float | None) -> str:
            return "–" if value is None else f"{value:.2f}"

        tables = (self.accuracy, self.steered)
        rows = [(of, *(cell(table[of][on]) for table in tables for on in MODELS)) for of in MODELS]
        head = ("direction of", "accuracy: base", "thinking", "steered: base", "thinking")
        p = ", ".join(f"{write_p(value)} in the {name}" for name, value in self.p.items())
        return html_table(head, rows, f"resid_post.{self.layer}, cosine {self.cosine:.2f}, {p}")


@torch.no_grad()
def last_states(model: Model, pairs: Pairs, layers: Sequence[int]) -> Float[Tensor, "layers 2 pairs d_model"]:
    """Read ``resid_post`` at the last token of the clean and the corrupt text of each pair.

    Args:
        layers: layers to read, counted from 0.

    Returns:
        For each layer the states of the clean texts, then those of the corrupt texts.
    """
    sites = [f"resid_post.{layer}" for layer in layers]
    sides: list[list[Tensor]] = [[], []]
    for clean, corrupt, *_ in pairs.on(model.device).parts(rows_that_fit(model)):
        for side, ids in zip(sides, (clean, corrupt), strict=True):
            with capture(model, sites, tokens=Tokens(positions=[ids.shape[1] - 1])) as acts:
                model.hf(ids)
            side.append(torch.stack([acts[site].float().cpu() for site in sites]))
    return torch.stack([torch.cat(side, 1) for side in sides], 1)


def _labelled(
    states: Float[Tensor, "2 pairs d_model"],
) -> tuple[Float[Tensor, "rows d_model"], Bool[Tensor, " rows"]]:
    return states.flatten(0, 1), torch.arange(2 * states.shape[1]) < states.shape[1]


def fit_direction(states: Float[Tensor, "rows d_model"], labels: Bool[Tensor, " rows"], layer: int) -> Direction:
    """Fit the difference of means, and a logistic regression along it.

    Args:
        states: the state of each text.
        labels: True for clean texts.
        layer: the layer that the states come from.
    """
    vector = states[labels].mean(0) - states[~labels].mean(0)
    centre = states.mean(0)
    along = (states - centre) @ vector / vector.norm().clamp(min=_SMALLEST)
    width = along.std().clamp(min=1e-9)
    fitted = LogisticRegression().fit((along / width).numpy()[:, None], labels.numpy())
    slope = float(fitted.coef_[0, 0])
    return Direction(vector, centre, layer, slope, float(-fitted.intercept_[0] / slope * width))


def direction_transfer(
    pair: Pair,
    fitted: Pairs,
    test: Pairs,
    *,
    layers: tuple[int, ...] | None = None,
    n_permutations: int = 200,
    seed: int = 0,
) -> DirectionTransfer:
    """Fit a direction in each model, then use it as a probe and for steering in both models.

    Args:
        fitted: pairs to fit on: of ``statement_pairs`` for truth, of ``behaviour_pairs`` for a behaviour.
        test: pairs to test on, made from other traces.
        layers: layers to choose from, counted from 0; None for all.
        n_permutations: number of shuffles of the labels for the p-value.
        seed: seeds the shuffles and the random direction.

    Raises:
        NotApplicable: if the models differ in width, or there are too few pairs.
    """
    if pair.base.d_model != pair.thinking.d_model:
        raise NotApplicable(
            f"{pair.base.name} and {pair.thinking.name} differ in width, so their directions cannot be exchanged"
        )
    for what, some in (("fit on", fitted), ("test on", test)):
        if len(some) < _LEAST:
            raise NotApplicable(f"{len(some)} pairs of texts to {what}: a direction needs at least {_LEAST}")
    models = {"base": pair.base, "thinking": pair.thinking}
    layers = layers or tuple(range(min(each.n_layers for each in models.values())))
    seen = {name: last_states(model, fitted, layers) for name, model in models.items()}
    at = _best_layer(list(seen.values()))
    layer = layers[at]
    train = {name: _labelled(states[at]) for name, states in seen.items()}
    tested = {name: _labelled(last_states(model, test, [layer])[0]) for name, model in models.items()}
    found = {name: fit_direction(*train[name], layer) for name in MODELS}
    for name, direction in found.items():
        if not float(direction.vector.norm()) > _SMALLEST:
            raise NotApplicable(
                f"clean and corrupt texts have the same states in the {name} model: there is no direction"
            )
    # The mean is no part of the direction and differs between models, so each model's states are centred by its own.
    centres = {name: states.mean(0) for name, (states, _) in train.items()}
    accuracy = {of: {on: _accuracy(found[of], *tested[on], centres[on]) for on in MODELS} for of in MODELS}
    generator = torch.Generator().manual_seed(seed)
    p = {}
    for name in MODELS:
        (states, labels), (others, truth) = train[name], tested[name]
        shuffled = np.zeros(n_permutations)
        for i in range(n_permutations):
            # Test labels are shuffled too; otherwise a direction of high variance is right, or wrong, about all texts.
            mine, theirs = (each[torch.randperm(len(each), generator=generator)] for each in (labels, truth))
            shuffled[i] = _accuracy(fit_direction(states, mine, layer), others, theirs)
        p[name] = float((1 + (shuffled >= accuracy[name][name]).sum()) / (1 + n_permutations))
    noise = torch.randn(pair.base.d_model, generator=generator)
    vectors = {name: found[name].vector for name in MODELS}

    def pushed(vector: Tensor, on: str) -> float | None:
        return _restored(models[on], test, layer, vector / vector.norm() * vectors[on].norm())

    return DirectionTransfer(
        layer,
        accuracy,
        p,
        float(torch.cosine_similarity(vectors["base"], vectors["thinking"], dim=0)),
        {of: {on: pushed(vectors[of], on) for on in MODELS} for of in MODELS},
        {on: pushed(noise, on) for on in MODELS},
        (2 * len(fitted), 2 * len(test)),
    )


def _accuracy(
    direction: Direction,
    states: Float[Tensor, "rows d_model"],
    labels: Bool[Tensor, " rows"],
    centre: Float[Tensor, " d_model"] | None = None,
) -> float:
    moved = states if centre is None else states - centre + direction.centre
    return float((direction.predict(moved) == labels).float().mean())


def _best_layer(seen: Sequence[Float[Tensor, "layers 2 pairs d_model"]]) -> int:
    """The layer whose probe, fitted on every other pair, is most accurate on the rest; the first of equal ones."""
    found = []
    for layer in range(len(seen[0])):
        each = [
            _accuracy(fit_direction(*_labelled(states[layer, :, ::2]), layer), *_labelled(states[layer, :, 1::2]))
            for states in seen
        ]
        found.append(sum(each))
    return int(np.argmax(found))


@torch.no_grad()
def _restored(model: Model, pairs: Pairs, layer: int, push: Float[Tensor, " d_model"]) -> float | None:
    """Share of the logit difference that a push at the last tokens of corrupt texts restores."""

    def shift(state: Tensor) -> Tensor:
        state = state.clone()
        state[:, -_LAST:] += push.to(state)
        return state

    sums = torch.zeros(3, dtype=torch.float64)
    for clean, corrupt, right, wrong in pairs.on(model.device).parts(rows_that_fit(model)):
        measure = logit_difference(right, wrong)
        runs = [model.hf(ids, logits_to_keep=1).logits for ids in (corrupt, clean)]
        with edit(model, {f"resid_post.{layer}": Apply(shift)}):
            runs.append(model.hf(corrupt, logits_to_keep=1).logits)
        sums += torch.stack([measure(run).double().sum().cpu() for run in runs])
    before, after, pushed = sums.tolist()
    return (pushed - before) / (after - before) if abs(after - before) > _APART * len(pairs) else None
