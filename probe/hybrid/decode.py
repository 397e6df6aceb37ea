"""Hybrid decoding: both models run on the same emitted text, and gated rows of the base model are steered.

Per step one cached pass of each model over the batch; then, only where the gate is open, only the layers above the
steering layer once more. Rows that end leave the batch.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from probe.hooks import Runner
from probe.hybrid.emit import Emit
from probe.hybrid.policy import HowStrongly, Moment, Where, Which
from probe.models import Pair
from probe.problems import Problem


@dataclass(frozen=True)
class Arm:
    """One row of an experiment: where, which, how strongly, and what a gated row does."""

    name: str
    where: Where
    which: Which
    how_strongly: HowStrongly
    emit: Emit


@dataclass
class HybridTrace:
    """What one problem's row emitted and why; all lists run over the emitted tokens."""

    problem_id: str
    tokens: list[int] = field(default_factory=list)
    steered: list[bool] = field(default_factory=list)
    behaviour: list[int] = field(default_factory=list)
    strength: list[float] = field(default_factory=list)
    base_token: list[int] = field(default_factory=list)
    thinking_token: list[int] = field(default_factory=list)
    truncated: bool = True


def draws(problem_id: str, seed: int, new_tokens: int) -> Tensor:
    """Uniform numbers for one problem, ``[new_tokens, 2]``: the same ones however problems are batched."""
    digest = hashlib.sha256(f"{seed}/{problem_id}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.rand(new_tokens, 2, generator=generator)


@torch.no_grad()
def decode_hybrid(
    pair: Pair,
    arm: Arm,
    problems: Sequence[Problem],
    *,
    steering_layer: int,
    taxonomy_layer: int,
    new_tokens: int,
    seed: int = 0,
) -> list[HybridTrace]:
    """Decode one batch of problems under one arm.

    Args:
        pair: base and thinking model; each reads the problem through its own prompt and the same emitted tokens.
        arm: the policy and what gated rows do.
        steering_layer: layer of the base model whose ``resid_post`` is read and shifted.
        taxonomy_layer: layer of the thinking model whose ``resid_post`` the policy reads.
        new_tokens: limit of emitted tokens, the end token included.
        seed: of the random controls.

    Returns:
        One trace a problem, in order. A row ends at an end token of either model.
    """
    ends = set(pair.base.eos_ids) | set(pair.thinking.eos_ids)
    device = pair.base.device
    out = [HybridTrace(problem.id) for problem in problems]
    uniform = torch.stack([draws(problem.id, seed, new_tokens) for problem in problems]).to(device)
    alive = list(range(len(problems)))
    base = Runner(pair.base, [pair.base.prompt_ids(p.question) for p in problems], new_tokens, steer=steering_layer)
    thinking = Runner(
        pair.thinking, [pair.thinking.prompt_ids(p.question) for p in problems], new_tokens, read=[taxonomy_layer]
    )
    base_step, thinking_step = base.prefill(), thinking.prefill()
    for i in range(new_tokens):
        vocab = min(base_step.logits.shape[-1], thinking_step.logits.shape[-1])  # embeddings may be padded differently
        moment = Moment(
            base_step.logits[:, :vocab],
            thinking_step.logits[:, :vocab].to(device),
            base_step.resid[steering_layer],
            thinking_step.resid[taxonomy_layer],
            uniform[alive, i],
        )
        base_token, thinking_token = moment.base_logits.argmax(-1), moment.thinking_logits.argmax(-1)
        tokens = base_token.clone()
        gated = arm.where(moment)
        rows = gated.nonzero()[:, 0]
        behaviour = torch.full_like(tokens, -1)
        strength = torch.zeros(len(tokens), device=device)
        if len(rows):
            there = moment.select(rows)
            behaviour[rows] = arm.which(there).to(device)
            strength[rows] = arm.how_strongly(there, behaviour[rows]).float()
            tokens[rows] = arm.emit(there, behaviour[rows], strength[rows], base, rows)
        going = []
        columns = (tokens, gated, behaviour, strength, base_token, thinking_token)
        for at, (token, *why) in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
            trace = out[alive[at]]
            if token in ends:
                trace.truncated = False
                continue
            trace.tokens.append(token)
            for name, value in zip(
                ("steered", "behaviour", "strength", "base_token", "thinking_token"), why, strict=True
            ):
                getattr(trace, name).append(value)
            going.append(at)
        if not going or i == new_tokens - 1:
            break
        if len(going) < len(alive):
            kept = torch.tensor(going, device=device)
            base.keep(kept)
            thinking.keep(kept.to(pair.thinking.device))
            alive, tokens = [alive[at] for at in going], tokens[kept]
        base_step, thinking_step = base.step(tokens), thinking.step(tokens.to(pair.thinking.device))
    return out
