"""A linear reader that predicts which behaviour the thinking model is about to show.

A taxonomy classifies sentences that are already written. At the token that predicts the first token of a new sentence,
the taxonomy still reads the previous sentence. A vector learned and chosen by that label would therefore cause what
*follows* a behaviour, not the behaviour itself. So each gate is labelled with the sentence that its token belongs to,
and a reader fitted on the train traces predicts that label before the sentence is written.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from probe.activations import SentenceActivations
from probe.hooks import force, forced_pass
from probe.models import Model, Pair, seeded
from probe.problems import Problem
from probe.steering.gates import text_batches, token_behaviours
from probe.steering.saving import load_module, save_module
from probe.taxonomy import Taxonomy
from probe.traces import Trace

_MAX_TOKENS = 20_000


class _Settings(TypedDict):
    layer: int
    d_model: int
    n_behaviours: int


class ComingReader(nn.Module):
    """Multinomial logistic regression on ``resid_post.layer`` of the thinking model.

    Args:
        layer: the 0-based layer that is read.
        d_model: width of the thinking model.
        n_behaviours: K of the taxonomy.
    """

    def __init__(self, layer: int, d_model: int, n_behaviours: int) -> None:
        super().__init__()
        self.layer, self.d_model, self.n_behaviours = layer, d_model, n_behaviours
        self.linear = nn.Linear(d_model, n_behaviours)

    @torch.no_grad()
    def forward(self, resid: Float[Tensor, "rows d_model"]) -> Int[Tensor, " rows"]:
        """Predict the behaviour of the sentence that the next token will belong to; the states may be on any device."""
        return self.linear(resid.to(self.linear.weight.device).float()).argmax(-1).to(resid.device)

    def __repr__(self) -> str:
        return f"ComingReader({self.n_behaviours} behaviours, resid_post.{self.layer})"

    def save(self, folder: str | Path) -> None:
        """Write ``reader.safetensors`` and then ``reader.json`` to a folder."""
        fields = ("layer", "d_model", "n_behaviours")
        save_module(self, folder, "reader", {name: getattr(self, name) for name in fields})

    @classmethod
    def load(cls, folder: str | Path) -> "ComingReader":
        """Load a reader that :meth:`save` wrote; it is frozen.

        Raises:
            ProbeError: if the folder holds no reader, or a damaged one.
        """
        return load_module(
            lambda settings: cls(settings["layer"], settings["d_model"], settings["n_behaviours"]),
            folder,
            "reader",
            _Settings,
        )


def learn_reader(
    pair: Pair,
    taxonomy: Taxonomy,
    traces: Sequence[Trace],
    problems: Sequence[Problem],
    *,
    acts: SentenceActivations,
    seed: int = 0,
    batch_size: int = 16,
) -> ComingReader:
    """Fit a reader on the thinking model's own text.

    It reads the output of the last block, where the next token is decided.

    Args:
        pair: the thinking model of the pair is read.
        taxonomy: gives the label of each sentence.
        traces, problems: traces of the thinking model on the train split and their problems, in the same order.
        acts: the harvested sentences of the traces.
        seed: seeds the choice of tokens, if there are more than 20 000.
        batch_size: number of traces in a forward pass.

    Returns:
        The frozen reader, on the thinking model's device.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    model, named = pair.thinking, token_behaviours(taxonomy, traces, acts)
    layer = model.n_layers - 1
    states, wanted = [], []
    for part, emitted in text_batches(pair, traces, problems, batch_size):
        resid = predicting_states(model, problems, part, emitted, layer)
        for row, i in enumerate(part):
            label = named[i][: len(emitted[row])]
            states.append(resid[row, : len(label)][(label >= 0).to(resid.device)].float().cpu())
            wanted.append(label[label >= 0])
    x, y = torch.cat(states).numpy(), torch.cat(wanted).numpy()
    some = np.random.default_rng(seed).permutation(len(y))[:_MAX_TOKENS]
    scaler = StandardScaler().fit(x[some])
    regression = LogisticRegression(max_iter=300).fit(scaler.transform(x[some]), y[some])
    with seeded(seed):  # initial weights, which are replaced
        reader = ComingReader(layer, x.shape[1], taxonomy.n_behaviours).requires_grad_(False)
    reader.linear.weight.zero_()
    reader.linear.bias.fill_(-1e9)  # a behaviour without an example is never predicted
    coefficients, intercepts = regression.coef_, regression.intercept_
    if len(regression.classes_) == 2:  # for two classes scikit-learn keeps one row
        coefficients, intercepts = np.stack([-coefficients[0], coefficients[0]]), np.r_[-intercepts, intercepts]
    means, scales = np.asarray(scaler.mean_), np.asarray(scaler.scale_)
    weights = coefficients / scales
    for row, behaviour in enumerate(regression.classes_):
        reader.linear.weight[behaviour] = torch.from_numpy(weights[row])
        reader.linear.bias[behaviour] = float(intercepts[row] - weights[row] @ means)
    return reader.eval().to(model.device)


def predicting_states(
    model: Model, problems: Sequence[Problem], part: Sequence[int], emitted: Sequence[Sequence[int]], layer: int
) -> Float[Tensor, "rows emitted d_model"]:
    """Read ``resid_post.layer`` at the tokens that predict each emitted token.

    Args:
        problems: the problems of all traces.
        part: indices of the problems of this batch.
        emitted: the emitted tokens of each problem in ``part``.
        layer: 0-based.
    """
    forced = force(model, [model.prompt_ids(problems[i].question) for i in part], emitted)
    site = f"resid_post.{layer}"
    return forced_pass(model, forced, site, logits=False).predicting(site)
