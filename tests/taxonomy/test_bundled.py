"""On the bundled thinking model: the behaviours that the written rule chooses are its true types of sentence."""

import pytest

from probe.activations import SentenceActivations, harvest
from probe.models import load_pair
from probe.problems import load_problems
from probe.taxonomy import TaxonomyConfig, fit_taxonomy, taxonomy_sites
from probe.traces import generate_traces


@pytest.mark.slow
@pytest.mark.long
def test_the_rule_finds_the_true_types_of_tiny_rl() -> None:
    thinking, story = load_pair("tiny-rl", device="cpu").thinking, load_problems("story")

    def sentences(split: str, n: int) -> SentenceActivations:
        traces = generate_traces(thinking, story, story.take(split, n), max_new_tokens=320, batch_size=100)
        return harvest(thinking, traces, taxonomy_sites(thinking, (), spread=6))

    train, validation = sentences("train", 200), sentences("validation", 80)
    taxonomy = fit_taxonomy(train, validation, TaxonomyConfig(), sentence_type=story.sentence_type)
    assert len(train.sites) == 3
    assert min(taxonomy.scores["ami_by_seed"]) >= 0.80
    assert taxonomy.scores["stability"] >= 0.85
    assert taxonomy.scores["agreement"] >= 0.85
