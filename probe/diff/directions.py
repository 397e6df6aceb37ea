"""A direction that tells two kinds of text apart, in both models of a pair: by probes and by steering, two by two.

Truth (Marks and Tegmark, 2310.06824) is one such; Du et al. (2504.02904) carry it from a base to a post-trained model,
Ward et al. (2507.12638) the direction of a behaviour.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from probe.circuits import Pairs, logit_difference
from probe.errors import ProbeError
from probe.hooks import Apply, capture, edit
from probe.models import Model, Pair

MODELS = ("base", "thinking")
_LAST = 2
"""Tokens that are steered: the last ones."""
_LEAST = 4
"""Pairs, of which half are for choosing the layer."""
_APART = 0.1
"""Of a logit difference a pair: what steering could bring about must be as much, or there is nothing to share."""


@dataclass(frozen=True)
class Direction:
    """A direction, and where along it the clean texts begin.

    Attributes:
        vector: mean state of clean minus mean state of corrupt texts.
        centre: mean of all states.
        layer: of ``resid_post``.
    """

    vector: Float[Tensor, " d_model"]
    centre: Float[Tensor, " d_model"]
    layer: int
    slope: float
    threshold: float

    def predict(self, states: Float[Tensor, "rows d_model"]) -> Bool[Tensor, " rows"]:
        """Which texts are of the clean kind."""
        along = (states - self.centre) @ self.vector / self.vector.norm()
        return self.slope * (along - self.threshold) > 0


@dataclass(frozen=True)
class DirectionTransfer:
    """Probes and steering of each model, on each model; all on texts that nothing was fitted on.

    Attributes:
        layer: chosen by the probes' accuracy on a part of the texts that were fitted on.
        accuracy: of the probe of one model (first) on states of the other (second).
        p: share of probes that are as accurate on their own model when all labels are shuffled.
        cosine: of the two directions.
        steered: of the difference in what comes next, the share that adding the direction of one model (first) at the
            last tokens of corrupt texts brings back in the other (second). None where both kinds of text go on alike.
        random: the same of a drawn direction of the same length.
        texts: fitted on, tested on.
    """

    layer: int
    accuracy: dict[str, dict[str, float]]
    p: dict[str, float]
    cosine: float
    steered: dict[str, dict[str, float | None]]
    random: dict[str, float | None]
    texts: tuple[int, int]

    def _repr_html_(self) -> str:
        def cell(value: float | None) -> str:
            return "–" if value is None else f"{value:.2f}"

        rows = "".join(
            f"<tr><td>{of}</td>"
            + "".join(f"<td>{cell(table[of][on])}</td>" for table in (self.accuracy, self.steered) for on in MODELS)
            + "</tr>"
            for of in MODELS
        )
        return (
            f"<p>resid_post.{self.layer}, cosine {self.cosine:.2f}, "
            + ", ".join(f"p {value:.3f} in the {name}" for name, value in self.p.items())
            + "</p><table><tr><th>direction of</th><th>accuracy: base</th><th>thinking</th>"
            f"<th>steered: base</th><th>thinking</th></tr>{rows}</table>"
        )


@torch.no_grad()
def last_states(model: Model, pairs: Pairs, layers: Sequence[int]) -> Float[Tensor, "layers 2 pairs d_model"]:
    """``resid_post`` of each layer at the last token of the clean and of the corrupt text of each pair."""
    sites = [f"resid_post.{layer}" for layer in layers]
    sides: list[list[Tensor]] = [[], []]
    for clean, corrupt, *_ in pairs:
        for side, ids in zip(sides, (clean, corrupt), strict=True):
            with capture(model, sites) as acts:
                model.hf(ids)
            side.append(torch.stack([acts[site][:, -1].float().cpu() for site in sites]))
    return torch.stack([torch.cat(side, 1) for side in sides], 1)


def _labelled(
    states: Float[Tensor, "2 pairs d_model"],
) -> tuple[Float[Tensor, "rows d_model"], Bool[Tensor, " rows"]]:
    return states.flatten(0, 1), torch.arange(2 * states.shape[1]) < states.shape[1]


def fit_direction(states: Float[Tensor, "rows d_model"], labels: Bool[Tensor, " rows"], layer: int) -> Direction:
    """The difference of means, and a logistic regression along it."""
    vector = states[labels].mean(0) - states[~labels].mean(0)
    centre = states.mean(0)
    along = (states - centre) @ vector / vector.norm()
    width = along.std().clamp(min=1e-9)
    fitted = LogisticRegression().fit((along / width).numpy()[:, None], labels.numpy())
    slope = float(fitted.coef_[0, 0])
    return Direction(vector, centre, layer, slope, float(-fitted.intercept_[0] / slope * width))


def direction_transfer(
    pair: Pair, fitted: Pairs, held: Pairs, *, layers: tuple[int, ...] | None = None, draws: int = 200, seed: int = 0
) -> DirectionTransfer:
    """Find the direction in each model and try it on both.

    Args:
        fitted, held: of ``statement_pairs`` for truth, of ``behaviour_pairs`` for a behaviour; made from other traces,
            so that no text of the second is known.
        layers: to choose from; all unless given.
        draws: of shuffled labels.
        seed: of shuffling and of the drawn direction.

    Raises:
        ProbeError: if there are too few pairs.
    """
    for what, some in (("fit on", fitted), ("test on", held)):
        if len(some) < _LEAST:
            raise ProbeError(f"{len(some)} pairs of texts to {what}: a direction needs {_LEAST} at least")
    models = {"base": pair.base, "thinking": pair.thinking}
    layers = layers or tuple(range(min(each.n_layers for each in models.values())))
    seen = {name: last_states(model, fitted, layers) for name, model in models.items()}
    at = _best_layer(list(seen.values()))
    layer = layers[at]
    train = {name: _labelled(states[at]) for name, states in seen.items()}
    test = {name: _labelled(last_states(model, held, [layer])[0]) for name, model in models.items()}
    found = {name: fit_direction(*train[name], layer) for name in MODELS}
    # Means differ between models, and are no part of the direction: each model's states are centred by its own.
    centres = {name: states.mean(0) for name, (states, _) in train.items()}
    accuracy = {of: {on: _accuracy(found[of], *test[on], centres[on]) for on in MODELS} for of in MODELS}
    generator = torch.Generator().manual_seed(seed)
    p = {}
    for name in MODELS:
        (states, labels), (others, truth) = train[name], test[name]
        drawn = np.zeros(draws)
        for i in range(draws):
            # All labels are shuffled: a direction of much variance would else be right, or wrong, about all of them.
            mine, theirs = (each[torch.randperm(len(each), generator=generator)] for each in (labels, truth))
            drawn[i] = _accuracy(fit_direction(states, mine, layer), others, theirs)
        p[name] = float((1 + (drawn >= accuracy[name][name]).sum()) / (1 + draws))
    noise = torch.randn(pair.base.d_model, generator=generator)
    vectors = {name: found[name].vector for name in MODELS}

    def pushed(vector: Tensor, on: str) -> float | None:
        return _brought(models[on], held, layer, vector / vector.norm() * vectors[on].norm())

    return DirectionTransfer(
        layer,
        accuracy,
        p,
        float(torch.cosine_similarity(vectors["base"], vectors["thinking"], dim=0)),
        {of: {on: pushed(vectors[of], on) for on in MODELS} for of in MODELS},
        {on: pushed(noise, on) for on in MODELS},
        (2 * len(fitted), 2 * len(held)),
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
    """By accuracy on every other pair of a probe on the rest; the first of the best."""
    found = []
    for layer in range(len(seen[0])):
        each = [
            _accuracy(fit_direction(*_labelled(states[layer, :, ::2]), layer), *_labelled(states[layer, :, 1::2]))
            for states in seen
        ]
        found.append(sum(each))
    return int(np.argmax(found))


@torch.no_grad()
def _brought(model: Model, pairs: Pairs, layer: int, push: Float[Tensor, " d_model"]) -> float | None:
    """Share of what tells clean from corrupt that a push at the last tokens of corrupt texts brings about."""

    def shift(state: Tensor) -> Tensor:
        state = state.clone()
        state[:, -_LAST:] += push.to(state)
        return state

    sums = torch.zeros(3, dtype=torch.float64)
    for clean, corrupt, right, wrong in pairs:
        measure = logit_difference(right, wrong)
        runs = [model.hf(ids, logits_to_keep=1).logits for ids in (corrupt, clean)]
        with edit(model, {f"resid_post.{layer}": Apply(shift)}):
            runs.append(model.hf(corrupt, logits_to_keep=1).logits)
        sums += torch.stack([measure(run).double().sum().cpu() for run in runs])
    before, after, pushed = sums.tolist()
    return (pushed - before) / (after - before) if abs(after - before) > _APART * len(pairs) else None
