"""Validates the falsification cards on latents planted in ``tiny-decoupled``: one reads a cue, one reads a state.

The cue latent distinguishes small talk with a cue word from small talk without. The state latent distinguishes silent
redos from ordinary computing sentences, which have the same words. Both are differences of means with the threshold
midway, each in two forms (:func:`plant`). The cards must call the first "cue" and must not call the second "cue".
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from probe.activations import SentenceActivations, harvest
from probe.engine import KeptFolder
from probe.files import read_json, write_json
from probe.models import Model, ModelConfig, bundled_folder, load_model, load_pair
from probe.organisms.decoupled import decoupled_document, parse_trace, reword_decoupled, write_decoupled
from probe.organisms.documents import join, wander
from probe.organisms.tokenizer import THINKING_PROMPT, build_tokenizer
from probe.organisms.train import train
from probe.problems import TYPES, Problem, ProblemSet, Story, draw_story, load_problems, parse, reword
from probe.taxonomy import Card, FalsifyConfig, Normaliser, falsify
from probe.traces import Traces, make_trace, stream_samples

NEW_TOKENS = 320
SITE = "resid_post.2"
CUE = ("small talk with cue", "small talk")
"""Two kinds of sentence of the cue-decoupled grammar that differ only in cue words."""
STATE = ("redo", "compute")
"""Two kinds of sentence that differ only in the state of the work, not in words."""

Kinds = Callable[[Sequence[str]], list[str | None]]


@dataclass(frozen=True)
class Planted:
    """Latents of known meaning. Each fires where normalised activations pass all of its thresholds."""

    site: str
    """The site whose activations the latents read."""
    labels: list[str]
    """One label for each latent."""
    directions: list[Float[Tensor, "_ d_model"]]
    """One matrix for each latent; each row is a direction that activations are projected on."""
    thresholds: list[Float[Tensor, " _"]]
    """One vector for each latent; each entry is the least projection on the direction of the same row."""
    normaliser: Normaliser
    """Applied to activations before they are projected."""

    @property
    def n_behaviours(self) -> int:
        """Number of latents."""
        return len(self.labels)

    def fires(self, x: Float[Tensor, "sentence d_model"]) -> Bool[Tensor, "sentence behaviour"]:
        """Whether each latent fires in each sentence, given the sentences' activations at :attr:`site`."""
        z = self.normaliser(x)
        passed = [z @ each.T > least for each, least in zip(self.directions, self.thresholds, strict=True)]
        return torch.stack([each.all(1) for each in passed], dim=1)

    def save(self, folder: str | Path) -> None:
        """Write ``planted.safetensors`` into ``folder``."""
        tensors = {"mean": self.normaliser.mean, "limit": torch.tensor([self.normaliser.limit])}
        for label, rows, least in zip(self.labels, self.directions, self.thresholds, strict=True):
            tensors |= {f"{label}/directions": rows.contiguous(), f"{label}/thresholds": least.contiguous()}
        save_file(tensors, Path(folder) / "planted.safetensors", {"site": self.site, "labels": json.dumps(self.labels)})

    @classmethod
    def load(cls, folder: str | Path) -> "Planted":
        """Read latents that :meth:`save` wrote into ``folder``."""
        with safe_open(Path(folder) / "planted.safetensors", "pt") as file:
            about, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        labels = json.loads(about["labels"])
        return cls(
            about["site"],
            labels,
            [tensors[f"{label}/directions"] for label in labels],
            [tensors[f"{label}/thresholds"] for label in labels],
            Normaliser(tensors["mean"], tensors["limit"].item()),
        )


def plant(
    activations: SentenceActivations,
    kinds: Sequence[str | None],
    site: str,
    *,
    directions: Sequence[tuple[str, str]] = (),
    nearest: Sequence[str] = (),
) -> Planted:
    """Make latents from differences of means, with the threshold midway.

    The plain difference between two kinds also fires in other kinds that happen to differ along it (the difference
    between redo and compute fires in nine checks of ten). The two forms below avoid that. Both measure in units of the
    spread within kinds, so that the numbers in a sentence do not mask what all sentences of its kind share.

    Args:
        activations: sentences of known kinds.
        kinds: the kind of each sentence; sentences of kind None are ignored.
        site: the site to read.
        directions: pairs of kinds, each of which makes a latent of one direction. It is the direction of least spread
            along which the first kind's mean is one above the second's and the means of all other kinds equal the
            second's.
        nearest: kinds, each of which makes a latent of the differences from all other kinds. It fires where all
            thresholds are passed, which is where its mean is the nearest (linear discriminant analysis with equal
            priors).
    """
    known = [i for i, kind in enumerate(kinds) if kind is not None]
    names = sorted({str(kinds[i]) for i in known})
    which = torch.tensor([names.index(str(kinds[i])) for i in known])
    x = activations.vectors[site][known].float()
    normaliser = Normaliser.fit(x, 10.0)
    z = normaliser(x)
    means = torch.stack([z[which == k].mean(0) for k in range(len(names))])
    within = torch.cov((z - means[which]).T)
    within += 1e-3 * within.diag().mean() * torch.eye(len(within))
    rows, least = [], []
    for kind, against in directions:
        p, q = names.index(kind), names.index(against)
        differences = means[[p, *(k for k in range(len(names)) if k not in (p, q))]] - means[q]
        spread = torch.linalg.solve(within, differences.T)
        direction = spread @ torch.linalg.solve(differences @ spread, torch.eye(len(differences))[0])
        rows.append(direction[None])
        least.append((means[q] @ direction + 0.5)[None])
    for kind in nearest:
        p = names.index(kind)
        others = [k for k in range(len(names)) if k != p]
        rows.append(torch.linalg.solve(within, (means[p] - means[others]).T).T)
        least.append((rows[-1] * (means[p] + means[others]) / 2).sum(1))
    labels = [f"{kind}, by direction" for kind, _ in directions] + [f"{kind}, by nearest mean" for kind in nearest]
    return Planted(site, labels, rows, least, normaliser)


def decoupled_kinds(texts: Sequence[str]) -> list[str | None]:
    """The kinds of the sentences of a cue-decoupled trace: their types, subdivided by cue words and hasty steps."""
    kinds = []
    for text, spoken in zip(texts, parse_trace(texts), strict=True):
        kind = spoken.type
        if kind is not None and spoken.has_cue:
            kind += " with cue"
        elif kind == "compute" and "Roughly" in text:
            kind = "hasty compute"
        kinds.append(kind)
    return kinds


def story_kinds(texts: Sequence[str]) -> list[str | None]:
    """The types of the sentences of a story trace."""
    return [parse(text).type for text in texts]


def kinds_of(traces: Traces, activations: SentenceActivations, kinds: Kinds) -> list[str | None]:
    """The kind of each row of ``activations``.

    Args:
        traces: the traces that were read.
        activations: one row for each sentence.
        kinds: returns the kinds of the sentences of one trace.
    """
    by_trace = [kinds([trace.sentence_text(sentence) for sentence in trace.sentences]) for trace in traces]
    return [by_trace[trace][sentence] for trace, sentence in activations.index]


def written_traces(
    model: Model, write: Callable[[Story, random.Random], list[tuple[str, str]]], n: int, seed: str
) -> Traces:
    """Make traces of documents of a grammar, as if the model had written them.

    Args:
        model: its tokenizer encodes the documents.
        write: writes a document, as (type, sentence) pairs.
        n: number of traces.
        seed: seeds stories and documents.
    """
    problem_set, rows = load_problems("story"), []
    for i in range(n):
        rng = random.Random(f"{seed}/{i}")
        story = draw_story(rng, rng.choice((3, 4, 5)))
        problem = Problem(f"{seed}/{i}", story.question(), str(story.answer))
        ids = model.tokenizer(join(write(story, rng)), add_special_tokens=False)["input_ids"]
        rows.append(make_trace(model, problem_set, problem, ids, truncated=False))
    return Traces(model.name, problem_set.name, rows)


def sampled_traces(model: Model, problem_set: ProblemSet, n: int, seed: int, batch_size: int = 64) -> Traces:
    """Sample traces at temperature 1 on training problems; unlike greedy traces, they contain hasty steps.

    Args:
        model: writes the traces under its own prompt.
        problem_set: the problems.
        n: number of traces, one for each problem.
        seed: seeds the samples.
        batch_size: number of problems decoded together.
    """
    problems = list(problem_set.take("train", n))
    prompts = [model.prompt_ids(problem.question) for problem in problems]
    found = stream_samples(model, prompts, 1, NEW_TOKENS, slots=batch_size, seed=seed)
    emitted = {item: (tokens, truncated) for item, _, tokens, truncated in found}
    traces = [make_trace(model, problem_set, problem, *emitted[item]) for item, problem in enumerate(problems)]
    return Traces(model.name, problem_set.name, traces)


def build_decoupled(
    out: str | Path,
    *,
    seed: int = 0,
    tokens: int = 800_000,
    traces: int = 200,
    config: FalsifyConfig | None = None,
    progress: bool = False,
) -> dict:
    """Train ``tiny-base`` on the cue-decoupled grammar, plant a cue and a state latent in it, and test both.

    Args:
        out: the model and the planted latents are written to ``out/tiny-decoupled``, the figures to
            ``out/figures.json``. A second call resumes interrupted training and tests.
        seed: seeds documents, samples and tests. Training always starts from the bundled weights.
        tokens: number of tokens of training that carry loss.
        traces: number of sampled traces that the latents are tested on.
        config: settings of the tests; None for the defaults.
        progress: show progress bars.

    Returns:
        For each planted latent its verdict, the result of each test, and the share of each kind of sentence in which it
        fires; and the same for one latent for each type in ``tiny-rl``, where cue and state coincide. The cards are in
        ``out/cards`` and ``out/work/types/cards``.
    """
    out = Path(out)
    key = {"work": "decoupled", "seed": seed, "tokens": tokens, "traces": traces}
    with KeptFolder(out, key, "*/model.safetensors", lambda: _made_with(out, seed, tokens)):
        return _build(out, seed, tokens, traces, config, progress)


def _made_with(out: Path, seed: int, tokens: int) -> bool:
    """Whether the figures of an earlier version name this seed and this length."""
    figures = read_json(out / "figures.json") if (out / "figures.json").is_file() else None
    return isinstance(figures, dict) and (figures.get("seed"), figures.get("tokens")) == (seed, tokens)


def _build(out: Path, seed: int, tokens: int, traces: int, config: FalsifyConfig | None, progress: bool) -> dict:
    """Train and test in a folder that is locked."""
    model = _taught(out, seed, tokens, progress)
    problem_set = load_problems("story")
    detector = plant_decoupled(model, seed, progress=progress)
    detector.save(out / "tiny-decoupled")
    tested = sampled_traces(model, problem_set, traces, seed)
    figures = {
        "seed": seed,
        "tokens": tokens,
        "site": SITE,
        "traces": traces,
        "rule": (config or FalsifyConfig()).rule,
        "planted": _cards(model, detector, tested, decoupled_kinds, reword_decoupled, config, seed, out, progress),
        "types of tiny-rl": type_cards(seed=seed, config=config, folder=out / "work" / "types", progress=progress),
    }
    write_json(out / "figures.json", figures)
    return figures


def plant_decoupled(model: Model, seed: int, *, progress: bool = False) -> Planted:
    """Plant a cue and a state latent, each by direction and by nearest mean, on documents of the cue-decoupled grammar.

    Args:
        model: ``tiny-decoupled``.
        seed: seeds the documents.
        progress: show progress bars.
    """
    texts = written_traces(model, write_decoupled, 400, f"plant/{seed}")
    read = harvest(model, texts, [SITE], progress=progress)
    kinds = kinds_of(texts, read, decoupled_kinds)
    return plant(read, kinds, SITE, directions=(CUE, STATE), nearest=(CUE[0], STATE[0]))


def type_cards(*, seed: int, config: FalsifyConfig | None = None, folder: Path, progress: bool = False) -> dict:
    """Test one latent for each type in ``tiny-rl`` on wandering documents, in which every type occurs.

    Args:
        seed: seeds documents and tests.
        config: settings of the tests; None for the defaults.
        folder: where finished cards are kept.
        progress: show progress bars.
    """
    model = load_pair("tiny-rl", device="cpu").thinking
    texts = written_traces(model, wander, 400, f"plant/{seed}")
    read = harvest(model, texts, [SITE], progress=progress)
    detector = plant(read, kinds_of(texts, read, story_kinds), SITE, nearest=TYPES)
    tested = written_traces(model, wander, 150, f"test/{seed}")
    return _cards(model, detector, tested, story_kinds, reword, config, seed, folder, progress)


def _taught(out: Path, seed: int, tokens: int, progress: bool) -> Model:
    folder = out / "tiny-decoupled"
    if not (folder / "model.safetensors").exists():
        work = out / "work" / "tiny-decoupled"
        work.mkdir(parents=True, exist_ok=True)
        base = load_model(ModelConfig(str(bundled_folder("tiny-base")), prompt=THINKING_PROMPT), device="cpu")
        tokenizer = build_tokenizer()
        hf = train(
            base.hf.requires_grad_(True), tokenizer, decoupled_document, work,
            tokens=tokens, seed=seed, lr=5e-4, progress=progress,
        )  # fmt: skip
        fresh = out / "work" / "tiny-decoupled.finished"
        hf.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        fresh.replace(folder)  # a rename, so that a model folder is always complete
    return load_model(ModelConfig(str(folder), prompt=THINKING_PROMPT), device="cpu")


def _cards(
    model: Model,
    detector: Planted,
    traces: Traces,
    kinds: Kinds,
    paraphrase: Callable[[str], str | None],
    config: FalsifyConfig | None,
    seed: int,
    out: Path,
    progress: bool,
) -> dict:
    read = harvest(model, traces, [SITE], progress=progress)
    cards = falsify(
        model, detector, traces, read,
        paraphrase=paraphrase, config=config, seed=seed, folder=out / "cards", progress=progress,
    )  # fmt: skip
    truth = kinds_of(traces, read, kinds)
    fires = detector.fires(read.vectors[SITE])
    return {card.label: _figures(card, fires[:, card.behaviour].tolist(), truth) for card in cards}


def _figures(card: Card, fires: Sequence[bool], truth: Sequence[str | None]) -> dict:
    """The content of a card, and the share of each kind of sentence in which the latent fires."""
    kinds = sorted({kind for kind in truth if kind is not None})
    by_kind = {kind: [hit for hit, its in zip(fires, truth, strict=True) if its == kind] for kind in kinds}
    return {
        "verdict": card.verdict,
        "reasons": list(card.reasons),
        "cues": [cue.text for cue in card.cues],
        "written anew": {"mean": card.stability.mean, "expected": card.stability.expected},
        "fires by kind": {kind: {"n": len(hits), "share": sum(hits) / len(hits)} for kind, hits in by_kind.items()},
    }
