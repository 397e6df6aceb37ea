"""The latent that brings a behaviour about is found among others, by what rollouts count and not by what correlates."""

import pytest
import torch

from probe.adapters import Boost, choose_latent, inserted
from probe.errors import ProbeError
from probe.hooks import capture
from tests.adapters.conftest import random_topk
from tests.adapters.test_tune import texts

SITE = "resid_post.1"


@pytest.fixture
def sae():
    return random_topk()


def marked(model, sae, latent):
    """Texts whose places count as before the behaviour where a latent is active."""
    found = []
    for text in texts(12):
        with torch.no_grad(), capture(model, SITE, stop=False) as acts:
            model.hf(torch.tensor([text.ids]))
        active = sae.encode(acts[SITE][0])[:, latent] > 0
        found.append([(place, bool(active[place])) for place in range(text.start, len(text.ids))])
    return found


def counting(model, sae, latent):
    """How far the site's state points along a latent's direction, as a stand-in for a count that it causes."""

    def counted():
        with torch.no_grad(), capture(model, SITE, stop=False) as acts:
            model.hf(torch.tensor([texts(1)[0].ids]))
        return [float((acts[SITE][0] @ sae.W_dec[latent]).mean())]

    return counted


def test_the_causing_latent_is_found_among_those_that_are_active(llama, sae):
    often = sae.W_enc.new_tensor([sum(shown for text in marked(llama, sae, k) for _, shown in text) for k in range(48)])
    latent = int(often.argsort(descending=True)[1])
    ahead = marked(llama, sae, latent)
    chosen = choose_latent(llama, sae, texts(12), ahead, counting(llama, sae, latent), strengths=(1.0, 2.0))
    assert chosen.latent == latent and chosen.value > 0
    best = max(chosen.tried, key=lambda each: each["count"])
    assert best["value"] == chosen.value and chosen.tried[0]["latent"] == -1
    with inserted(llama, Boost(sae, (latent,), chosen.value)):
        assert counting(llama, sae, latent)()[0] == pytest.approx(best["count"])


def test_what_nobody_shows_or_nothing_raises_is_refused(llama, sae):
    def always():
        llama.hf(torch.tensor([texts(1)[0].ids]))
        return [1.0]

    places = [[(place, False) for place in range(text.start, len(text.ids))] for text in texts(12)]
    with pytest.raises(ProbeError, match=r"0 of \d+ sentences show"):
        choose_latent(llama, sae, texts(12), places, always)
    mixed = [[(place, i % 2 == 0) for i, (place, _) in enumerate(each)] for each in places]
    with pytest.raises(ProbeError, match=r"raises the behaviour above 1\.00"):
        choose_latent(llama, sae, texts(12), mixed, always)
