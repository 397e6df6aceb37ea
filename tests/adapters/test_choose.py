"""The latent that causes a behaviour is found among active ones, by what rollouts count."""

import pytest
import torch

from probe.adapters import Boost, choose_latent, examples_of, inserted, places_before
from probe.counters import SCHEMES
from probe.errors import ProbeError
from probe.hooks import capture
from probe.models import load_pair
from probe.problems import load_problems
from probe.taxonomy import find_behaviour
from probe.traces import generate_traces
from tests.adapters.conftest import random_topk
from tests.adapters.test_tune import texts

SITE = "resid_post.1"


@pytest.fixture
def sae():
    return random_topk()


def activity(model, sae):
    """For each text, the activations of the latents at each place."""
    found = []
    for text in texts(12):
        with torch.no_grad(), capture(model, SITE, stop=False) as acts:
            model.hf(torch.tensor([text.ids]))
        found.append(sae.encode(acts[SITE][0])[text.start :])
    return found


def counting(model, sae, latent):
    """How far the state at the site points along a latent's direction, in place of a count that the latent causes."""

    def counted():
        with torch.no_grad(), capture(model, SITE, stop=False) as acts:
            model.hf(torch.tensor([texts(1)[0].ids]))
        return [float((acts[SITE][0] @ sae.W_dec[latent]).mean())]

    return counted


def test_the_causing_latent_is_found_among_those_that_are_active(llama, sae):
    active = [acts > 0 for acts in activity(llama, sae)]
    latent = int(torch.cat(active).sum(0).argsort(descending=True)[1])
    ahead = [
        [(text.start + i, bool(shown)) for i, shown in enumerate(acts[:, latent])]
        for text, acts in zip(texts(12), active, strict=True)
    ]
    counted = counting(llama, sae, latent)
    chosen = choose_latent(llama, sae, texts(12), ahead, counted=counted, strengths=(1.0, 2.0))
    assert chosen.latent == latent and chosen.value > 0
    best = max(chosen.tried, key=lambda each: each["count"])
    assert best["value"] == chosen.value and chosen.tried[0]["latent"] == -1
    with inserted(llama, Boost(sae, (latent,), chosen.value)):
        assert counted()[0] == pytest.approx(best["count"])


def test_a_behaviour_that_never_varies_or_that_nothing_raises_is_refused(llama, sae):
    places = [[(place, False) for place in range(text.start, len(text.ids))] for text in texts(12)]
    with pytest.raises(ProbeError, match=r"0 of \d+ sentences show"):
        choose_latent(llama, sae, texts(12), places, counted=lambda: [1.0])
    mixed = [[(place, i % 2 == 0) for i, (place, _) in enumerate(each)] for each in places]

    def always():
        llama.hf(torch.tensor([texts(1)[0].ids]))
        return [1.0]

    with pytest.raises(ProbeError, match=r"raises the behaviour above 1\.00"):
        choose_latent(llama, sae, texts(12), mixed, counted=always)


def test_places_are_before_sentences_and_marked_by_the_behaviour():
    thinking, problems = load_pair("tiny-rl", device="cpu").thinking, load_problems("story")
    some = problems.take("test", 4)
    traces = generate_traces(thinking, problems, some, max_new_tokens=120)
    examples = examples_of(thinking, list(traces), some)
    found = places_before(examples, traces, find_behaviour("story:verification"))
    assert sum(shown for places in found for _, shown in places) > 0
    for places, trace, text in zip(found, traces, examples, strict=True):
        assert sum(shown for _, shown in places) == SCHEMES["story"].count(trace)["verification"]
        for (place, _), sentence in zip(places, trace.sentences, strict=True):
            first = trace.tokens[sentence.token_start]
            assert text.ids[place + 1] == first, "the state at the place predicts the sentence's first token"
