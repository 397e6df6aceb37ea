"""Which behaviour the thinking model is about to show, read off its own residual stream.

A taxonomy names sentences that are written. At the token from which a new sentence is predicted, what it reads is
still the sentence before: a vector learned and chosen by that name would bring about what *follows* its behaviour, and
not the behaviour it is named for. So each gate is named by the sentence that its token is in, and a linear reader,
fitted on the train traces, tells that name while the sentence is not yet written.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from probe.activations import SentenceActivations
from probe.files import read_json, write_json
from probe.hooks import force, forced_pass
from probe.models import Model, Pair
from probe.problems import Problem
from probe.steering.gates import text_batches, token_behaviours
from probe.taxonomy import Taxonomy
from probe.traces import Trace

#: Tokens that a reader is fitted on, at most.
_TOKENS = 20_000


class ComingReader(nn.Module):
    """Multinomial logistic regression on ``resid_post.layer`` of the thinking model.

    Args:
        layer: 0-based.
        d_model: width of the thinking model.
        n_behaviours: K.
    """

    def __init__(self, layer: int, d_model: int, n_behaviours: int) -> None:
        super().__init__()
        self.layer, self.d_model, self.n_behaviours = layer, d_model, n_behaviours
        self.linear = nn.Linear(d_model, n_behaviours)

    @torch.no_grad()
    def forward(self, resid: Float[Tensor, "rows d_model"]) -> Int[Tensor, " rows"]:
        """The behaviour of the sentence that the next token will be in."""
        return self.linear(resid.float()).argmax(-1)

    def save(self, folder: Path) -> None:
        """Write ``reader.safetensors`` and, last, ``reader.json``."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / "reader.safetensors"
        )
        write_json(folder / "reader.json", {name: getattr(self, name) for name in ("layer", "d_model", "n_behaviours")})

    @classmethod
    def load(cls, folder: Path) -> "ComingReader":
        """Read what :meth:`save` wrote."""
        from safetensors.torch import load_file

        made = cls(**read_json(folder / "reader.json"))
        made.load_state_dict(load_file(folder / "reader.safetensors"))
        return made.eval().requires_grad_(False)


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
    """Fit a reader on the thinking model's own text, at its last block: there its next token is decided.

    Args:
        traces, problems: of the train split, in the same order.
        acts: the sentences of the traces.
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
    some = np.random.default_rng(seed).permutation(len(y))[:_TOKENS]
    scaler = StandardScaler().fit(x[some])
    regression = LogisticRegression(max_iter=300).fit(scaler.transform(x[some]), y[some])
    reader = ComingReader(layer, x.shape[1], taxonomy.n_behaviours).requires_grad_(False)
    reader.linear.weight.zero_()
    reader.linear.bias.fill_(-1e9)  # a behaviour that was never seen is never read
    coefficients, intercepts = regression.coef_, regression.intercept_
    if len(regression.classes_) == 2:  # scikit-learn keeps one row for two classes
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
    """``resid_post.layer`` from which each emitted token of some texts is predicted."""
    forced = force(model, [model.prompt_ids(problems[i].question) for i in part], emitted)
    site = f"resid_post.{layer}"
    return forced_pass(model, forced, site, logits=False).predicting(site)
