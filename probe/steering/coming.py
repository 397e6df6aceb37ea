"""A linear reader that predicts which behaviour the thinking model is about to show.

A taxonomy classifies sentences that are already written. At the token that predicts the first token of a new sentence,
the taxonomy still reads the previous sentence. A vector learned and chosen by that label would therefore cause what
*follows* a behaviour, not the behaviour itself. So each gate is labelled with the sentence that its token belongs to,
and a reader fitted on the train traces predicts that label before the sentence is written.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from probe.activations import SentenceActivations
from probe.hooks import Forced, force, forced_pass, in_rows
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
    sizes = [
        int((named[i][: len(own)] >= 0).sum())
        for part, emitted in text_batches(pair, traces, problems, batch_size)
        for i, own in zip(part, emitted, strict=True)
    ]
    # The tokens are chosen before a model runs, so that no other state is kept.
    some = torch.from_numpy(np.random.default_rng(seed).permutation(sum(sizes))[:_MAX_TOKENS])
    inside = _by_text(some, sizes)
    x = np.empty((len(some), model.d_model), np.float32)
    y = np.empty(len(some), np.int64)
    for part, emitted in text_batches(pair, traces, problems, batch_size):
        wanted = [next(inside) for _ in part]
        rows = [row for row, (ranks, _) in enumerate(wanted) if len(ranks)]
        if not rows:
            continue
        resid = predicting_states(model, traces, [part[row] for row in rows], [emitted[row] for row in rows], layer)
        for states, row in zip(resid, rows, strict=True):
            ranks, numbers = wanted[row]
            label = named[part[row]][: len(emitted[row])]
            at = (label >= 0).nonzero()[numbers, 0]
            x[ranks], y[ranks] = states[at.to(states.device)].float().cpu().numpy(), label[at].numpy()
    scaler = StandardScaler().fit(x)
    regression = LogisticRegression(max_iter=300).fit(scaler.transform(x), y)
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


def _by_text(some: Int[Tensor, " chosen"], sizes: Sequence[int]) -> Iterator[tuple[np.ndarray, Int[Tensor, " own"]]]:
    """Divide chosen numbers among texts that count on from each other.

    Args:
        some: numbers of tokens, counted over all texts.
        sizes: the number of tokens of each text.

    Yields:
        For each text, the places in ``some`` that chose one of its tokens, and the numbers of these tokens in it.
    """
    sorted_, places = some.sort()
    ends = torch.tensor(list(itertools.accumulate(sizes)), dtype=torch.long)
    begin = 0
    for size, end, after in zip(sizes, ends.tolist(), torch.searchsorted(sorted_, ends).tolist(), strict=True):
        yield places[begin:after].numpy(), sorted_[begin:after] - (end - size)
        begin = after


def predicting_states(
    model: Model, asked: Sequence[Trace | Problem], part: Sequence[int], emitted: Sequence[Sequence[int]], layer: int
) -> Float[Tensor, "rows emitted d_model"]:
    """Read ``resid_post.layer`` at the tokens that predict each emitted token.

    Args:
        asked: what the texts follow: the prompt of a trace, or the model's own prompt for a problem.
        part: indices of the texts of this batch.
        emitted: the emitted tokens of each text in ``part``.
        layer: 0-based.
    """
    prompts = [
        model.prompt_ids(each.question) if isinstance(each, Problem) else model.encode_prompt(each.prompt)
        for each in (asked[i] for i in part)
    ]
    forced = force(model, prompts, emitted)
    site = f"resid_post.{layer}"

    def read(some: Forced) -> tuple[Tensor, ...]:
        return (forced_pass(model, some, site, logits=False).predicting(site),)

    return in_rows(model, forced, read, what=f"reading {site}")[0]
