"""``probe discover``: a thinking model and problems → traces → activations → taxonomy → names → cards → report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from probe.activations import SentenceActivations, harvest
from probe.config import to_dict
from probe.errors import ProbeError
from probe.files import object_hash, read_json, write_json
from probe.models import (
    DeviceNames,
    Model,
    ModelConfig,
    PairConfig,
    Site,
    ThinkTags,
    as_placement,
    content_hash,
    find_pair,
    load_model,
)
from probe.pipeline.cut import warn_cut
from probe.pipeline.discover.config import DiscoverConfig, DiscoverSizesConfig, JudgeConfig
from probe.pipeline.discover.results import discovered
from probe.pipeline.folder import RunFolder, without
from probe.pipeline.imported import ImportedSplits, check_reader
from probe.pipeline.prompts import begin
from probe.pipeline.run.inputs import check_positions, prompt_hash, sizes_of, taken_problems, weights_hash
from probe.pipeline.stages import Split, Splits, harvest_splits, roll_out_splits, taxonomy_of
from probe.problems import Problem, ProblemSet
from probe.reports import write_discovery_report
from probe.taxonomy import (
    CachedJudge,
    Card,
    EndpointJudge,
    Judge,
    JudgedScores,
    LocalJudge,
    Taxonomy,
    delimiter_documents,
    falsify,
    fit_taxonomy,
    judge_scores,
    name_taxonomy,
    read_cards,
    taxonomy_sites,
    write_neuronpedia,
)
from probe.traces import Traces

SPREAD = 6
"""Number of sites that are tried if none is given."""
RESIDUAL = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
"""Kinds of sites whose directions the unembedding can read."""


@dataclass(frozen=True)
class DiscoverInputs:
    """The model, the problems of each split, and the sites at which the model is read."""

    model: Model
    problem_set: ProblemSet
    train: Sequence[Problem]
    validation: Sequence[Problem]
    sites: tuple[str, ...]
    max_new_tokens: int
    judge: Judge | None
    imported: ImportedSplits | None = None
    remarks: tuple[str, ...] = ()

    def settled(self, config: DiscoverConfig) -> DiscoverConfig:
        """The settings with the numbers of problems that were actually taken. Results depend on these settings."""
        return replace(config, sizes=DiscoverSizesConfig(len(self.train), len(self.validation)))

    def hashes(self) -> dict[str, str]:
        """Hash what a discovery depends on beside its settings."""
        tags = self.model.think_tags
        return {
            "prompt": prompt_hash(self.model),
            **({} if tags == ThinkTags() else {"think_tags": object_hash(to_dict(tags))}),
            "problems": self.problem_set.hash,
            "thinking": weights_hash(self.model),
            **({} if self.imported is None else {"traces": self.imported.hash}),
        }


def discover(config: DiscoverConfig, out: str | Path, *, progress: bool = False) -> dict[str, Any]:
    """Find, score, name and test the behaviours of a thinking model.

    Args:
        config: see :class:`~probe.DiscoverConfig`.
        out: the folder of the discovery. A discovery with the same settings in it resumes; settings of stages that are
            not finished may change. People can rename, describe and merge behaviours in ``taxonomy/behaviours.yaml``;
            running the same command again applies the edits.
        progress: show bars.

    Returns:
        What ``discover.json`` holds. ``report.html`` is beside it, the taxonomy in ``taxonomy/``.

    Raises:
        ProbeError: for settings that cannot work; before any model runs.
    """
    out = Path(out).expanduser()
    inputs = prepare_discovery(config, out)
    config = inputs.settled(config)
    with discovery_folder(config, inputs, out) as folder:
        return _discover(config, inputs, folder, progress=progress)


_HOW = ("device", "memory", "decoding.batch_size", "thinking_url", "servers")
"""Settings that only say how a discovery is made."""
_WHERE = ("pair", "thinking", "problems", "traces")
"""Settings that say where the inputs are, which are known by their content."""
_OWN = ("taxonomy", "judge", "falsify", "shown")
"""Settings that belong to one stage or to the report."""


def discovery_folder(config: DiscoverConfig, inputs: DiscoverInputs, out: Path) -> RunFolder:
    """The folder of a discovery, which is checked and not yet written.

    Raises:
        ProbeError: if it holds a discovery with other settings or inputs, or something else.
    """
    settings = without(to_dict(config), *_OWN, *_HOW, *_WHERE)
    return RunFolder(out, {"config": settings, **inputs.hashes()})


def _discover(config: DiscoverConfig, inputs: DiscoverInputs, folder: RunFolder, *, progress: bool) -> dict[str, Any]:
    """Run the stages in a folder that is locked."""
    own, out = to_dict(config), folder.path
    seed, sites = config.seed, inputs.sites
    sampling = {"thinking": config.decoding.of_thinking(inputs.model)}
    prompts = begin(
        out,
        {"thinking": inputs.model},
        inputs.train[0].question,
        sampling,
        remarks=inputs.remarks,
        progress=progress,
    )
    stages = DiscoverStages(config, inputs, progress)
    splits = folder.stage("traces", stages.traces, own["decoding"], seed, how=("batch_size",))
    acts = folder.stage("activations", lambda *at: stages.activations(splits, *at), {"sites": sites}, seed)
    searched = {**own["taxonomy"], "judge": own["judge"]}
    taxonomy = folder.stage("taxonomy", lambda *at: stages.taxonomy(splits, acts, *at), searched, seed)
    judged = stages.judged(taxonomy, acts[1])
    cards = folder.stage(
        "cards", lambda *at: stages.cards(splits, acts, taxonomy, *at), own["falsify"], seed, how=("batch_tokens",)
    )
    if Site.parse(taxonomy.site).kind in RESIDUAL:
        stages.neuronpedia(splits[1], acts[1], taxonomy, out / "neuronpedia")
    found = discovered(config, inputs.problem_set, splits[1], acts[1], taxonomy, cards, judged)
    found["prompts"] = prompts
    found["cut"] = warn_cut({inputs.model.name: [*splits[0], *splits[1]]}, inputs.max_new_tokens, progress=progress)
    write_json(out / "discover.json", found)
    write_discovery_report(out)
    return found


def prepare_discovery(config: DiscoverConfig, out: Path) -> DiscoverInputs:
    """Load everything that a discovery needs and refuse settings that cannot work.

    Raises:
        ProbeError: for an unknown pair, model, problem set, site or device, a split without problems, answers that
            need more positions than the model has, or a judge that cannot be reached.
    """
    as_placement(config.device)
    if config.pair is not None:
        pair = find_pair(config.pair)
    else:
        assert config.thinking is not None
        pair = PairConfig(config.name, base=config.thinking, thinking=config.thinking)
    taken, imported = taken_problems(config, pair, sizes_of(config.sizes))
    train, validation = taken.splits["train"], taken.splits["validation"]
    model = load_model(pair.thinking, device=config.device, dtype=config.dtype, memory=config.memory)
    if imported is not None:
        check_reader(imported.folder, model)
    sites = taxonomy_sites(model, config.taxonomy.sites, spread=SPREAD)
    for site in map(Site.parse, sites):
        if not site.by_token:
            raise ProbeError(f"taxonomy.sites has {site}, which has no vector for each token; name another site")
        _ = site.lens  # a saved taxonomy names its site so; the path of a module has no such name and is refused
    max_new_tokens = config.decoding.max_new_tokens or pair.max_new_tokens
    check_positions(model, (*train, *validation), max_new_tokens)
    judge = None
    if config.judge is not None:
        judge = CachedJudge(_judge(config.judge, config.device), out / "judge")
        if not (out / "run.json").exists():
            # Fails now if the judge cannot be reached; the answer is not kept, because the folder does not exist yet.
            judge.judge.complete(["Answer with one word: yes."])
    return DiscoverInputs(
        model, taken.problem_set, train, validation, sites, max_new_tokens, judge, imported, taken.remarks
    )


def _judge(config: JudgeConfig, device: DeviceNames) -> Judge:
    if config.url is not None:
        return EndpointJudge(config.url, config.model, key_env=config.key_env)
    # A device for each module is for the model of the discovery alone.
    model = load_model(ModelConfig(config.model, prompt="chat"), device=device if isinstance(device, str) else "auto")
    return LocalJudge(model, max_new_tokens=config.max_new_tokens)


@dataclass(frozen=True)
class DiscoverStages:
    """The work of each stage.

    Each method is called with the folder of its stage and whether the stage is finished; a finished stage is loaded.
    """

    config: DiscoverConfig
    inputs: DiscoverInputs
    progress: bool = False

    def traces(self, folder: Path, finished: bool) -> tuple[Traces, Traces]:
        """Roll out the thinking model on train and validation, or read imported traces instead."""
        inputs = self.inputs
        if inputs.imported is not None:
            train, validation = (
                inputs.imported.traces(name, problems, folder / name)
                for name, problems in (("train", inputs.train), ("validation", inputs.validation))
            )
            return train, validation
        sampling = self.config.decoding.of_thinking(inputs.model)
        made = roll_out_splits(
            {
                name: Split(inputs.model, problems, sampling, urls=self.config.thinking_url, setting="thinking_url")
                for name, problems in (("train", inputs.train), ("validation", inputs.validation))
            },
            inputs.problem_set,
            max_new_tokens=inputs.max_new_tokens,
            seed=self.config.seed,
            batch_size=self.config.decoding.batch_size,
            folder=folder,
            finished=finished,
            progress=self.progress and not finished,
            config=self.config.servers,
        )
        return made["train"], made["validation"]

    def activations(self, splits: tuple[Traces, Traces], folder: Path, finished: bool) -> Splits:
        """Harvest the mean activation of every sentence, at all sites in one pass."""
        return harvest_splits(
            self.inputs.model,
            *splits,
            self.inputs.sites,
            folder=folder,
            finished=finished,
            progress=self.progress,
        )

    def taxonomy(
        self,
        splits: tuple[Traces, Traces],
        acts: Splits,
        folder: Path,
        finished: bool,
    ) -> Taxonomy:
        """Search every site, family and size, choose one taxonomy, and let the judge name its behaviours."""
        if finished:
            return taxonomy_of(folder, acts[0])
        inputs, delimiters = self.inputs, None
        if "delimiter" in self.config.taxonomy.rivals:
            model, progress = inputs.model, self.progress
            train, validation = (
                harvest(
                    model, delimiter_documents(model, traces), inputs.sites, folder=folder / name, progress=progress
                )
                for name, traces in zip(("delimiters-train", "delimiters-validation"), splits, strict=True)
            )
            delimiters = (train, validation)
        taxonomy = fit_taxonomy(
            *acts,
            self.config.taxonomy,
            sentence_type=inputs.problem_set.sentence_type,
            delimiters=delimiters,
            folder=folder,
            device=inputs.model.device,
            progress=self.progress,
        )
        if inputs.judge is not None:
            names = name_taxonomy(
                inputs.judge,
                taxonomy,
                acts[0],
                most_sentences=self.config.taxonomy.most_sentences,
                seed=self.config.seed,
                progress=self.progress,
            )
            taxonomy.titles = [name.title for name in names]
            taxonomy.descriptions = [name.description for name in names]
            taxonomy.scores["names_failed"] = sum(name.failed for name in names)
            taxonomy.save(folder)
        # Loading applies edits that people made in behaviours.yaml before an interrupted call resumed here.
        return Taxonomy.load(folder)

    def judged(self, taxonomy: Taxonomy, validation: SentenceActivations) -> JudgedScores | None:
        """Score the names with the judge, on validation sentences; answers are cached."""
        if self.inputs.judge is None or self.config.judge is None:
            return None
        x = validation.rows(taxonomy.site)
        kept = taxonomy.normaliser.keep(x)
        descriptions = [
            edit.description or said or ""
            for edit, said in zip(taxonomy.edits.behaviours, taxonomy.descriptions, strict=True)
        ]
        return judge_scores(
            self.inputs.judge,
            taxonomy.names,
            descriptions,
            [text for text, keep in zip(validation.texts, kept.tolist(), strict=True) if keep],
            taxonomy.behaviour(x)[kept],
            seed=self.config.seed,
            sample=self.config.judge.sample,
            progress=self.progress,
        )

    def cards(
        self,
        splits: tuple[Traces, Traces],
        acts: Splits,
        taxonomy: Taxonomy,
        folder: Path,
        finished: bool,
    ) -> list[Card]:
        """Falsify every behaviour on validation traces."""
        if finished:
            cards = read_cards(folder)
            if [card.behaviour for card in cards] != list(range(taxonomy.n_behaviours)):
                raise ProbeError(
                    f"{folder / 'cards.json'} does not have one card for each of {taxonomy.n_behaviours} behaviours; "
                    f"remove {folder} and run the same command again"
                )
            return cards
        return falsify(
            self.inputs.model,
            taxonomy,
            splits[1],
            acts[1],
            paraphrase=self.inputs.problem_set.reword,
            judge=self.inputs.judge,
            config=self.config.falsify,
            seed=self.config.seed,
            folder=folder,
            progress=self.progress,
        )

    def neuronpedia(self, validation: Traces, acts: SentenceActivations, taxonomy: Taxonomy, folder: Path) -> None:
        """Write the features in Neuronpedia's format, unless they were written with the same names."""
        written, told = folder / "names.json", {"names": taxonomy.names, "taxonomy": content_hash(taxonomy)}
        if not written.exists() or read_json(written) != told:
            names, progress = taxonomy.names, self.progress
            write_neuronpedia(folder, taxonomy, self.inputs.model, validation, acts, names=names, progress=progress)
            write_json(written, told)
