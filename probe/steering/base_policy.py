"""The oracle-free policy: it predicts where to steer, and with which behaviour, from the base model alone."""

import copy
import itertools
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from probe.convergence import Schedule
from probe.errors import ProbeError
from probe.hooks import Forced, check_finite, forced_pass, in_rows
from probe.models import Model, seeded
from probe.progress import progress_bar
from probe.steering.config import PolicyConfig
from probe.steering.gates import GateBatch
from probe.steering.saving import load_module, save_module


class _Settings(typing.TypedDict):
    layers: tuple[int, ...]
    d_model: int
    n_behaviours: int
    hidden: int
    dropout: float
    threshold: float


class BasePolicy(nn.Module):
    """A network with one hidden layer that decides, for each token, whether to steer and with which behaviour.

    It reads the base model's residual stream at several layers.

    Args:
        layers: 0-based layers of the base model whose ``resid_post`` is read.
        d_model: width of the base model.
        n_behaviours: K; the classes are "no steering" and the K behaviours.
        hidden: width of the hidden layer.
        dropout: dropout rate of the hidden layer during training.
        threshold: tokens are steered where the probability of steering is above this.
    """

    def __init__(
        self,
        layers: Sequence[int],
        d_model: int,
        n_behaviours: int,
        *,
        hidden: int = 256,
        dropout: float = 0.0,
        threshold: float = 0.5,
    ) -> None:
        super().__init__()
        self.layers, self.d_model, self.n_behaviours = tuple(layers), d_model, n_behaviours
        self.hidden, self.dropout, self.threshold = hidden, dropout, threshold
        width = len(self.layers) * d_model
        self.mean: Tensor
        self.spread: Tensor
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        self.network = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, 1 + n_behaviours)
        )

    def forward(self, states: Float[Tensor, "rows width"]) -> Float[Tensor, "rows classes"]:
        """Compute the logits of "no steering" and of each behaviour from the concatenated states of all layers."""
        return self.network((states.float() - self.mean) / self.spread)

    def _read(self, resid: Mapping[int, Float[Tensor, "rows d_model"]]) -> Float[Tensor, "rows classes"]:
        return self(torch.cat([resid[layer] for layer in self.layers], -1))

    @torch.no_grad()
    def gate(self, resid: Mapping[int, Float[Tensor, "rows d_model"]]) -> Bool[Tensor, " rows"]:
        """Decide whether to steer each row.

        Args:
            resid: the newest state of each row, for each of :attr:`layers`.
        """
        return 1 - self._read(resid).softmax(-1)[:, 0] > self.threshold

    @torch.no_grad()
    def behaviour(self, resid: Mapping[int, Float[Tensor, "rows d_model"]]) -> Int[Tensor, " rows"]:
        """Predict the behaviour of each row, under the assumption that it is steered.

        Args:
            resid: the newest state of each row, for each of :attr:`layers`.
        """
        return self._read(resid)[:, 1:].argmax(-1)

    def __repr__(self) -> str:
        layers = ", ".join(map(str, self.layers))
        return f"BasePolicy({self.n_behaviours} behaviours, layers {layers}, hidden {self.hidden})"

    def save(self, folder: str | Path) -> None:
        """Write ``policy.safetensors`` and then ``policy.json`` to a folder."""
        fields = ("layers", "d_model", "n_behaviours", "hidden", "dropout", "threshold")
        save_module(self, folder, "policy", {name: getattr(self, name) for name in fields})

    @classmethod
    def load(cls, folder: str | Path) -> "BasePolicy":
        """Load a policy that :meth:`save` wrote; it is frozen.

        Raises:
            ProbeError: if the folder holds no policy, or a damaged one.
        """
        return load_module(
            lambda settings: cls(**{name: settings[name] for name in typing.get_type_hints(_Settings)}),
            folder,
            "policy",
            _Settings,
        )


@dataclass(frozen=True)
class PolicyData:
    """The training data of a policy: one row for each token.

    Attributes:
        states: the base model's residual stream where the token is predicted, all layers concatenated; on any device,
            in any number format.
        wanted: the right class: 0 for no steering, otherwise 1 + the behaviour.
    """

    states: Float[Tensor, "tokens width"]
    wanted: Int[Tensor, " tokens"]

    def __add__(self, other: "PolicyData") -> "PolicyData":
        return PolicyData(torch.cat([self.states, other.states]), torch.cat([self.wanted, other.wanted]))

    def __repr__(self) -> str:
        return f"PolicyData({len(self.wanted)} tokens, {int((self.wanted > 0).sum())} steered)"


@dataclass(frozen=True)
class LearnedPolicy:
    """A learned policy and the history of its training.

    Attributes:
        policy: the policy of the best evaluation, frozen.
        history: for each evaluation its ``step``, the ``loss`` on the validation tokens in nats, and ``train``, the
            mean loss of the steps before it. The first entry is from before training.
        converged: whether the validation loss stopped falling before the maximum number of steps.
    """

    policy: BasePolicy
    history: list[dict[str, float]]
    converged: bool


def policy_data(
    base: Model, batches: Sequence[GateBatch], layers: Sequence[int], *, tokens: int | None = None, seed: int = 0
) -> PolicyData:
    """Collect the training data of a policy from the emitted tokens of some batches.

    The states keep the model's number format. They lie on its device if they take at most a quarter of its budget,
    otherwise on the host.

    Args:
        batches: from :func:`~probe.steering.collect_gates`. They are read twice.
        layers: 0-based layers whose ``resid_post`` the policy will read.
        tokens: the number of tokens to keep, a random sample that is chosen before the model runs; None keeps all.
        seed: seeds the sample.
    """
    sizes = [int(batch.forced.emitted.sum()) for batch in batches]
    chosen = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(seed))[:tokens].sort().values
    width = len(layers) * base.d_model
    here = len(chosen) * width * base.dtype.itemsize <= base.budget // 4
    states = torch.empty(len(chosen), width, dtype=base.dtype, device=base.device if here else "cpu")
    wanted = torch.empty(len(chosen), dtype=torch.long, device=base.device)
    sites = [f"resid_post.{layer}" for layer in layers]

    def read(some: Forced) -> tuple[Tensor, ...]:
        rows, emitted = some.emitted.nonzero(as_tuple=True)
        ran = forced_pass(base, some, sites, logits=False)
        return (torch.cat([ran.whole[site][rows, some.predicts[rows, emitted]] for site in sites], -1),)

    begin = done = 0
    for batch, size in zip(batches, sizes, strict=True):
        own = chosen[(chosen >= begin) & (chosen < begin + size)] - begin
        begin += size
        if not len(own):
            continue
        emitted = batch.forced.emitted
        kept = torch.zeros_like(emitted)
        rows, columns = (each[own.to(emitted.device)] for each in emitted.nonzero(as_tuple=True))
        kept[rows, columns] = True
        texts = kept.any(1).nonzero()[:, 0]
        forced = replace(batch.forced, emitted=kept)
        found = in_rows(
            base,
            forced if len(texts) == len(kept) else forced.take(texts),
            read,
            what="reading states for the policy",
            sites=len(sites),
        )
        at = slice(done, done + len(own))
        states[at] = found[0].to(states.device)
        wanted[at] = torch.where(batch.gate, 1 + batch.behaviour, 0)[kept]
        done += len(own)
    return PolicyData(states, wanted)


def learn_policy(
    train: PolicyData,
    validation: PolicyData,
    *,
    layers: Sequence[int],
    n_behaviours: int,
    config: PolicyConfig,
    seed: int,
    progress: bool = False,
) -> LearnedPolicy:
    """Learn a policy by cross-entropy, and keep the weights with the lowest validation loss.

    Args:
        train, validation: from :func:`policy_data`.
        layers: the layers given to :func:`policy_data`.
        n_behaviours: K of the taxonomy.
        config: the settings of the network and its training.
        seed: seeds the weights, dropout and the order of tokens.
        progress: show a bar.

    Returns:
        The frozen policy, on the device of ``train.wanted``, and how its training went.

    Raises:
        ProbeError: if the states do not fit the layers and behaviours, or a state or the validation loss is not finite.
    """
    device, width = train.wanted.device, train.states.shape[1]
    if not len(train.wanted) or not len(validation.wanted):
        raise ProbeError("there is nothing to learn from: give at least one token to train on and one to validate on")
    for data in (train, validation):
        if data.states.shape[1] != width or width % len(layers) or int(data.wanted.max()) > n_behaviours:
            raise ProbeError(
                f"the states are {data.states.shape[1]} wide with classes up to {int(data.wanted.max())}; for "
                f"{len(layers)} layers and {n_behaviours} behaviours give what policy_data makes of one model"
            )
        for part in data.states.split(_rows_at_a_time(width)):
            check_finite(part, "a state that the policy reads")
    with seeded(seed, device):  # layers and dropout accept no generator
        policy = BasePolicy(layers, width // len(layers), n_behaviours, hidden=config.hidden, dropout=config.dropout)
        policy = policy.to(device)
        # Some columns at a time, because a copy of all in float32 may be larger than the budget.
        columns = train.states.split(_rows_at_a_time(len(train.states)), 1)
        moments = [(part.float().mean(0), part.float().std(0)) for part in columns]
        mean, spread = (torch.cat(each) for each in zip(*moments, strict=True))
        policy.mean.copy_(mean)
        policy.spread.copy_(spread.clamp(min=1e-6))
        history, converged = _train(policy, train, validation, config, seed=seed, progress=progress)
    return LearnedPolicy(policy.eval().requires_grad_(False), history, converged)


def _train(
    policy: BasePolicy, train: PolicyData, validation: PolicyData, config: PolicyConfig, *, seed: int, progress: bool
) -> tuple[list[dict[str, float]], bool]:
    optimizer = torch.optim.AdamW(policy.parameters(), lr=config.lr, weight_decay=0.01)
    schedule = Schedule(config.steps, config.check_every, config.patience, of_loss=0.02)
    batches = _in_epochs(len(train.wanted), config.batch_size, torch.Generator().manual_seed(seed))
    history: list[dict[str, float]] = []
    recent: list[Tensor] = []
    best = copy.deepcopy(policy.state_dict())
    bar = progress_bar(desc="policy", unit="step", show=progress)
    for done in itertools.count():
        if schedule.due(done):
            check = {"step": done, "loss": _loss(policy.eval(), validation, config.batch_size)}
            check_finite(torch.tensor(check["loss"]), f"the validation loss of the policy at step {done}")
            history.append(check | ({"train": torch.stack(recent).mean().item()} if recent else {}))
            recent = []
            schedule.update(done, check["loss"])
            if check["loss"] <= min(each["loss"] for each in history):
                best = copy.deepcopy(policy.state_dict())
            policy.train()
        if schedule.ended(done):
            break
        some = next(batches)
        states = train.states[some.to(train.states.device)].to(train.wanted.device)
        loss = F.cross_entropy(policy(states), train.wanted[some.to(train.wanted.device)])
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = config.lr * schedule.rate(done)
        optimizer.step()
        recent.append(loss.detach())
        bar.update()
    bar.close()
    policy.load_state_dict(best)
    return history, schedule.converged


def _in_epochs(n: int, batch_size: int, generator: torch.Generator) -> Iterator[Int[Tensor, " tokens"]]:
    while True:
        yield from torch.randperm(n, generator=generator).split(batch_size)


@torch.no_grad()
def _loss(policy: BasePolicy, data: PolicyData, batch_size: int) -> float:
    parts = zip(data.states.split(batch_size), data.wanted.split(batch_size), strict=True)
    losses = [F.cross_entropy(policy(states.to(wanted.device)), wanted, reduction="sum") for states, wanted in parts]
    return torch.stack(losses).sum().item() / len(data.wanted)


def _rows_at_a_time(width: int) -> int:
    """The number of rows of this width that are copied in float32 at a time."""
    return max(1, (1 << 26) // max(width, 1))


@torch.no_grad()
def residual_bits(policy: BasePolicy, data: PolicyData) -> dict[str, float]:
    """Measure the bits of gate and behaviour that a policy cannot predict; the thinking model has to supply them.

    Args:
        policy: a learned policy.
        data: tokens that it was not learned from.

    Returns:
        ``bits_per_token``, the cross-entropy under the policy, which is an upper bound; ``gate_recall`` and
        ``gate_precision``; and ``behaviour_accuracy`` at the tokens that should be steered.
    """
    parts = data.states.split(_rows_at_a_time(data.states.shape[1]))
    logits = torch.cat([policy(part.to(data.wanted.device)) for part in parts])
    bits = F.cross_entropy(logits, data.wanted, reduction="none") / torch.log(torch.tensor(2.0))
    chances = logits.softmax(-1)
    gate, truth = 1 - chances[:, 0] > policy.threshold, data.wanted > 0
    hit = (gate & truth).sum()
    right = (logits[:, 1:].argmax(-1) + 1 == data.wanted)[truth]
    return {
        "bits_per_token": bits.mean().item(),
        "gate_recall": (hit / truth.sum().clamp(min=1)).item(),
        "gate_precision": (hit / gate.sum().clamp(min=1)).item(),
        "behaviour_accuracy": right.float().mean().item() if len(right) else 0.0,
    }
