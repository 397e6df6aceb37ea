"""Reinforcement learning with the final answer as the only reward, by which ``tiny-rl`` learns *when*.

Policy gradient with a leave-one-out baseline within the samples of one problem (RLOO: Ahmadian et al., 2402.14740), one
small update per batch of fresh samples, so every update is on policy. There are no demonstrations, no reward for form
and no length penalty: the reward is 1 if the sample closes its thinking and states the right answer within the token
limit, else 0. The last phase adds a weak penalty for diverging from the base model, because a reward for the answer
alone lets everything drift that the answer does not depend on (the names in restated changes).
"""

import json
import random
import re
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from probe.hooks import check_finite
from probe.models import Model
from probe.organisms.checkpoint import Keep, load_checkpoint, save_checkpoint
from probe.organisms.corpus import SIZES
from probe.organisms.precision import autocast
from probe.organisms.tokenizer import THINKING_PROMPT
from probe.problems import CLOSE, Story, draw_story
from probe.progress import progress_bar
from probe.traces import stream_samples


@dataclass(frozen=True)
class Reinforce:
    """Settings of one phase of reinforcement learning."""

    steps: int = 95
    """Number of updates."""
    problems: int = 32
    """Number of problems in a batch."""
    samples: int = 16
    """Number of samples for each problem. The baseline of a sample is the mean reward of the others."""
    max_new_tokens: int = 224
    """The most tokens of a sample."""
    lr: float = 4e-4
    """Learning rate of AdamW after five steps of linear warm-up."""
    kl: float = 0.0
    """Weight of the divergence from the base model, which is summed over a sample's tokens."""


_ANSWER = re.compile(rf"{CLOSE} (?:So the|The) answer is (\d+)\.$")


def reward(story: Story, text: str) -> float:
    """The reward of a sample: 1 if it closes its thinking and states the right answer, else 0."""
    found = _ANSWER.search(text)
    return float(found is not None and int(found[1]) == story.answer)


def reinforce(
    model: Model,
    folder: Path,
    settings: Reinforce,
    *,
    seed: int,
    reference: Model | None = None,
    keep: Keep | None = None,
    progress: bool = False,
) -> Model:
    """Train ``model`` in place.

    Args:
        model: the model, with the thinking prompt.
        folder: holds the checkpoint and ``log.jsonl``, which has one line for each step. An interrupted run resumes.
        settings: how long and how fast the model trains.
        seed: seeds problems and samples.
        reference: the base model for ``settings.kl``; None leaves the divergence out.
        keep: called whenever a checkpoint is saved, with the number of steps done and the model.
        progress: show a progress bar.

    Returns:
        ``model``, in evaluation mode and frozen.
    """
    hf, tokenizer = model.hf, model.tokenizer
    (eos,) = model.eos_ids
    hf.requires_grad_(True)
    optimizer = torch.optim.AdamW(hf.parameters(), lr=settings.lr, betas=(0.9, 0.95), weight_decay=0.0)
    at = load_checkpoint(folder / "checkpoint", hf, optimizer) or {"step": 0}
    bar = progress_bar(total=settings.steps, initial=at["step"], desc=folder.name, unit="step", show=progress)
    for step in range(at["step"], settings.steps):
        started = time.perf_counter()
        rng = random.Random(f"reinforce/{seed}/{step}")
        sample_seed = rng.getrandbits(62)
        stories = [draw_story(rng, rng.choice(SIZES)) for _ in range(settings.problems)]
        heads = [tokenizer(THINKING_PROMPT.format(question=story.question()))["input_ids"] for story in stories]
        hf.eval()
        tails: list[list[int]] = [[] for _ in range(len(heads) * settings.samples)]
        for head, number, tokens, truncated in stream_samples(
            model, heads, settings.samples, settings.max_new_tokens, seed=sample_seed
        ):
            tails[head * settings.samples + number] = tokens if truncated else [*tokens, eos]
        sampled = time.perf_counter()
        texts = [model.decode(tail[:-1]) if tail[-1] == eos else "" for tail in tails]
        rewards = torch.tensor([reward(stories[i // settings.samples], text) for i, text in enumerate(texts)])
        grouped = rewards.view(settings.problems, settings.samples)
        others = (grouped.sum(1, keepdim=True) - grouped) / (settings.samples - 1)
        advantages = (grouped - others).flatten()
        rows = [
            (heads[i // settings.samples], tails[i], advantages[i].item())
            for i in range(len(tails))
            if settings.kl or advantages[i].abs() > 1e-6
        ]
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * min(1.0, (step + 1) / 5)
        loss = _update(model, optimizer, rows, reference, settings.kl) if rows else 0.0
        sizes = torch.tensor([len(stories[i // settings.samples].changes) for i in range(len(tails))])
        by_size = {n: rewards[sizes == n].mean().item() for n in SIZES if (sizes == n).any()}
        line = {
            "step": step,
            "reward": round(rewards.mean().item(), 4),
            "by_size": {n: round(value, 3) for n, value in by_size.items()},
            "tokens": round(sum(map(len, tails)) / len(tails), 1),
            "unfinished": round(sum(not text for text in texts) / len(texts), 3),
            "rows": len(rows),
            "loss": round(loss, 4),
            "seconds": [round(sampled - started, 1), round(time.perf_counter() - sampled, 1)],
        }
        with (folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        if (step + 1) % 5 == 0 or step + 1 == settings.steps:
            save_checkpoint(folder / "checkpoint", hf, optimizer, {"step": step + 1})
            if keep is not None:
                keep(step + 1, hf)
        bar.update()
    bar.close()
    hf.eval().requires_grad_(False)
    return model


def _update(
    model: Model,
    optimizer: torch.optim.Optimizer,
    rows: list[tuple[list[int], list[int], float]],
    reference: Model | None,
    kl: float,
) -> float:
    """One step along the policy gradient, in micro-batches of similar length."""
    hf, pad = model.hf.train(), model.pad_id
    rows = sorted(rows, key=lambda row: len(row[0]) + len(row[1]))
    total = sum(len(tail) for _, tail, _ in rows)
    summed, start = 0.0, 0
    optimizer.zero_grad()
    while start < len(rows):
        end = start + 1
        while end < len(rows) and (end - start + 1) * (len(rows[end][0]) + len(rows[end][1])) <= 16384:
            end += 1
        part = rows[start:end]
        width = len(part[-1][0]) + len(part[-1][1])
        ids = torch.full((len(part), width), pad)
        weight, emitted = torch.zeros(len(part), width), torch.zeros(len(part), width)
        for i, (head, tail, advantage) in enumerate(part):
            ids[i, : len(head) + len(tail)] = torch.tensor(head + tail)
            weight[i, len(head) : len(head) + len(tail)] = advantage
            emitted[i, len(head) : len(head) + len(tail)] = 1
        mask = (ids != pad).long()
        with autocast():
            logits = hf(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        nll = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        loss = (nll * weight[:, 1:]).sum() / total
        if reference is not None and kl:
            with torch.no_grad():
                fixed = reference.hf(input_ids=ids, attention_mask=mask).logits[:, :-1].log_softmax(-1)
            now = logits.log_softmax(-1)
            divergence = (now.exp() * (now - fixed)).sum(-1)
            loss = loss + kl * (divergence * emitted[:, 1:]).sum() / total
        check_finite(loss.detach(), "the loss of the reinforcement")
        loss.backward()
        summed += loss.item()
        start = end
    torch.nn.utils.clip_grad_norm_(hf.parameters(), 1.0)
    optimizer.step()
    return summed
