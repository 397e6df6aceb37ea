"""Running the falsification tests of every behaviour, and saving each test as soon as it is done."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import torch

from probe.activations import SentenceActivations, by_rows
from probe.config import read_as
from probe.engine import FolderLock
from probe.errors import ProbeError
from probe.files import object_hash, write_json
from probe.models import Model, identity
from probe.progress import progress_bar
from probe.taxonomy.falsify import trials
from probe.taxonomy.falsify.card import Card, Trial, decide
from probe.taxonomy.falsify.config import FalsifyConfig
from probe.taxonomy.falsify.cues import find_cues
from probe.taxonomy.falsify.detector import Detector
from probe.taxonomy.falsify.paraphrase import Paraphrase, Rewrite, by_judge, by_rule
from probe.taxonomy.falsify.regenerate import Stability
from probe.taxonomy.falsify.reread import ContextReader
from probe.taxonomy.judge.judge import Judge
from probe.traces import Traces

T = TypeVar("T")


def falsify(
    model: Model,
    detector: Detector,
    traces: Traces,
    activations: SentenceActivations,
    *,
    paraphrase: Paraphrase | None = None,
    judge: Judge | None = None,
    config: FalsifyConfig | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = False,
) -> list[Card]:
    """Test whether each behaviour follows the state of the reasoning or its cue words.

    A changed sentence is read in its context, after the prompt and the trace before it. The tests are: cue words
    injected into other sentences, cue words removed, another wording (after *Falsification of reasoning features*,
    arXiv 2601.05679), sampling the sentence again, and content projection (after *Reliable control points*,
    arXiv 2604.02113). Each has its own control. :attr:`FalsifyConfig.rule` gives the verdict.

    A verdict holds for the sentences it was tried on. "state" means that the behaviour survived these tests of words,
    not that no other surface cue could explain it.

    Args:
        model: the model whose activations they are.
        detector: a taxonomy, or any object with ``site``, ``labels``, ``n_behaviours`` and ``fires``.
        traces: the traces that were harvested.
        activations: what was harvested from them at the detector's site.
        paraphrase: gives another wording of a sentence, or None if it has none.
        judge: asked for other wordings if no ``paraphrase`` is given; failures are excluded and counted.
        config: the numbers of sentences and the thresholds.
        seed: seeds every random choice.
        folder: each test is saved here as soon as it is done; a later call with the same arguments runs only what is
            missing.
        progress: show a progress bar.

    Returns:
        A card for each behaviour.

    Raises:
        ProbeError: if ``detector`` lacks an attribute; if the activations lack its site, are not finite or are not
            this model's on these traces; or if the folder holds other tests.
    """
    config = config or FalsifyConfig()
    bench = _bench(model, detector, traces, activations, config, seed)
    rewrite, rewriter = None, None
    if paraphrase is not None:
        rewrite, rewriter = by_rule(paraphrase), getattr(paraphrase, "__qualname__", type(paraphrase).__name__)
    elif judge is not None:
        rewrite, rewriter = by_judge(judge), f"judge {judge.name}"
    home = None if folder is None else Path(folder)
    lock = nullcontext() if home is None else _begun(home, bench, rewriter)
    cards = []
    total = (4 if rewrite is None else 5) * detector.n_behaviours
    with (
        lock,
        progress_bar(total=total, desc="falsification", unit="test", show=progress) as bar,
    ):
        for b in range(detector.n_behaviours):
            cards.append(_card(bench, b, rewrite, None if home is None else home / f"behaviour-{b:03d}", bar.update))
        if home is not None:
            told = [card.to_dict() for card in cards]
            write_json(home / "cards.json", {"rule": config.rule, "seed": seed, "cards": told})
    return cards


class _Cards(TypedDict):
    cards: list[Card]


def read_cards(folder: str | Path) -> list[Card]:
    """Read the cards that :func:`falsify` saved in ``folder``.

    Raises:
        ProbeError: if the file is missing or damaged.
    """
    return read_as(_Cards, Path(folder) / "cards.json")["cards"]


def _card(
    bench: trials.Bench,
    behaviour: int,
    rewrite: Rewrite | None,
    folder: Path | None,
    advance: Callable[[], Any],
) -> Card:
    def once(name: str, kind: type[T], test: Callable[..., T], *args: Any) -> T:
        path = None if folder is None else folder / f"{name}.json"
        if path is not None and path.exists():
            result = read_as(kind, path)
        else:
            result = test(bench, behaviour, *args)
            if path is not None:
                write_json(path, asdict(result))  # pyright: ignore[reportArgumentType]
        advance()
        return result

    own = bench.own(behaviour)
    cues = find_cues(bench.texts, own, bench.config.cue_words)
    injection = once("injection", Trial, trials.injection, cues)
    removal = once("removal", Trial, trials.removal, cues)
    reworded = None if rewrite is None else once("paraphrase", Trial, trials.paraphrase, cues, rewrite)
    content = once("content", Trial, trials.content)
    stability = once("stability", Stability, trials.stability)
    verdict, reasons = decide(injection, removal, reworded, content, bench.config)
    if not any(own):
        verdict, reasons = "undecided", ("it fires in no sentence",)
    return Card(
        behaviour=behaviour,
        label=bench.detector.labels[behaviour],
        sentences=sum(own),
        share=sum(own) / max(len(own), 1),
        cues=tuple(cues),
        injection=injection,
        removal=removal,
        paraphrase=reworded,
        content=content,
        stability=stability,
        verdict=verdict,
        reasons=reasons,
    )


def _bench(
    model: Model,
    detector: Any,
    traces: Traces,
    activations: SentenceActivations,
    config: FalsifyConfig,
    seed: int,
) -> trials.Bench:
    """Check the arguments, and mark what fires in the unchanged sentences."""
    if not isinstance(detector, Detector):
        raise ProbeError(
            f"{type(detector).__name__} cannot be falsified; give a taxonomy, or an object with site, labels, "
            "n_behaviours and fires(activations)"
        )
    if detector.site not in activations.vectors:
        raise ProbeError(f"{detector.site} was not harvested; harvested: {', '.join(activations.sites) or 'no site'}")
    x = activations.rows(detector.site)
    bad = int((~by_rows(lambda some: some.isfinite().all(1), x)).sum())
    if bad:
        raise ProbeError(
            f"{bad} of {len(x)} sentence vectors at {detector.site} are not finite; leave these traces out, or "
            "harvest with another dtype"
        )
    reader = ContextReader.of(model, traces, activations, detector.site, config.batch_tokens)
    names = [traces[trace].problem_id for trace, _ in activations.index]
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return trials.Bench(
        reader=reader,
        detector=detector,
        x=x,
        fires=by_rows(lambda some: detector.fires(some.float()).cpu(), x)
        if len(x)
        else torch.zeros(0, detector.n_behaviours, dtype=torch.bool),
        texts=[reader.text(row) for row in range(len(x))],
        questions=[number[name] for name in names],
        config=config,
        seed=seed,
    )


def _begun(folder: Path, bench: trials.Bench, rewriter: str | None) -> FolderLock:
    """The lock of a folder that holds these tests and no others."""
    about = {
        "model": bench.reader.model.name,
        "site": bench.detector.site,
        "labels": list(bench.detector.labels),
        "fires": object_hash(bench.fires.int().tolist()),
        "sentences": object_hash([bench.texts, bench.reader.index]),
        "paraphrase": rewriter,
        "config": {name: value for name, value in asdict(bench.config).items() if name != "batch_tokens"},
        "seed": bench.seed,
        "weights": identity(bench.reader.model)["weights"],
    }
    path = folder / "falsify.json"
    if path.exists():
        # A file of an earlier version has the batch size too, and no weights; the activations were checked to be this
        # model's.
        there = read_as(dict[str, Any], path)
        there = {**there, "weights": there.get("weights", about["weights"])}
        there["config"] = {name: value for name, value in there.get("config", {}).items() if name != "batch_tokens"}
        other = [name for name in about if there.get(name) != about[name]]
        if other:
            raise ProbeError(f"{folder} holds tests with another {' and '.join(other)}; choose another folder")
    lock = FolderLock(folder)
    with lock:
        write_json(path, about)
    return lock
