"""Cue and state come apart in the cue-decoupled grammar, and the cards tell them apart in the model taught with it."""

import json
import random
from collections import Counter
from dataclasses import replace

import pytest
import torch

from probe.activations import SentenceActivations, harvest
from probe.models import ModelConfig, bundled_folder, load_model
from probe.organisms.decoupled import CUES, decoupled_document, parse_trace, reword_decoupled, write_decoupled
from probe.organisms.documents import join
from probe.organisms.planted import CUE, SITE, STATE, Planted, plant, written_traces
from probe.organisms.tokenizer import THINKING_PROMPT
from probe.problems.story.sentences import CHAT, COMPUTE, REDO, parse
from probe.problems.story.story import draw_story
from probe.taxonomy.falsify import FalsifyConfig, falsify
from probe.traces import split_sentences


def documents(n):
    for seed in range(n):
        rng = random.Random(seed)
        yield write_decoupled(draw_story(rng, rng.choice((2, 3, 4, 5))), rng)


def test_what_is_written_is_read_back(words):
    for written in documents(150):
        text = join(written)
        assert [text[a:b] for a, b in split_sentences(text)] == [f" {sentence}" for _, sentence in written]
        assert [spoken.type for spoken in parse_trace([sentence for _, sentence in written])] == [k for k, _ in written]
        assert words.unk_token_id not in words(text)["input_ids"]


def test_cue_and_state_come_apart():
    cues, openings = Counter(), {REDO: Counter(), COMPUTE: Counter()}
    for written in documents(400):
        for kind, sentence in written:
            cues[kind, sentence.startswith(CUES)] += 1
            if kind in openings and "Roughly" not in sentence:
                openings[kind][sentence.split()[0]] += 1
                assert parse(sentence).equation_true, "nor does the truth of the equation tell them apart"
    assert {kind for kind, has_cue in cues if has_cue} == {CHAT}
    assert cues[CHAT, True] / (cues[CHAT, True] + cues[CHAT, False]) == pytest.approx(0.5, abs=0.05)
    shares = [count["Now"] / count.total() for count in openings.values()]
    assert shares == pytest.approx([0.5, 0.5], abs=0.06)
    assert set(openings[REDO]) == set(openings[COMPUTE]) == {"Now", "That"}
    assert cues[REDO, False] > 250


@pytest.mark.parametrize(
    ("between", "type"),
    [([], REDO), ([" Redo it: Mia likes cards a lot."], REDO), ([" First, Mia finds 3 more cards."], COMPUTE)],
)
def test_a_redo_is_what_comes_after_a_wrong_step(between, type):
    for verdict, kind in (("wrong", type), ("right", COMPUTE)):
        texts = [" Roughly, 5 + 3 = 9.", f" Check that 5 + 3 = 9: {verdict}.", *between, " Now 5 + 3 = 8."]
        assert parse_trace(texts)[-1].type == kind
    assert (
        parse_trace([*texts[:1], " Check that 5 + 3 = 9: wrong.", " Now 5 + 3 = 8.", " Now 5 + 3 = 8."])[-1].type
        == COMPUTE
    )


def test_another_wording_has_no_cue_and_the_same_type():
    for written in documents(100):
        for kind, sentence in written:
            other = reword_decoupled(f" {sentence}")
            if other is not None:
                assert not other.strip().startswith(CUES)
                assert parse(other).type == (COMPUTE if kind == REDO else kind)
    assert decoupled_document(random.Random(0)) == decoupled_document(random.Random(0))


def test_a_planted_direction_answers_to_its_contrast_alone(tmp_path):
    generator = torch.Generator().manual_seed(0)
    means = 3 * torch.randn(4, 16, generator=generator)
    which = [i % 4 for i in range(800)]
    x = 10 + means[which] + 0.3 * torch.randn(800, 16, generator=generator)
    read = SentenceActivations({SITE: x}, [(i, 0) for i in range(800)], [""] * 800)
    planted = plant(read, ["abcd"[i] for i in which], SITE, directions=[("a", "b")], nearest=["c"])
    fires = planted.fires(x)
    assert fires[:, 0].tolist() == [i == 0 for i in which]
    assert fires[:, 1].tolist() == [i == 2 for i in which]
    planted.save(tmp_path)
    assert torch.equal(Planted.load(tmp_path).fires(x), fires)


@pytest.fixture(scope="module")
def decoupled():
    config = ModelConfig(str(bundled_folder("tiny-decoupled")), prompt=THINKING_PROMPT)
    return load_model(config, device="cpu")


@pytest.mark.slow
def test_the_cards_tell_a_cue_from_a_state(decoupled):
    """A cue, and a state with the same words as its opposite, put to the test in the shipped model."""
    planted = Planted.load(bundled_folder("tiny-decoupled"))
    keep = [planted.labels.index(f"{CUE[0]}, by direction"), planted.labels.index(f"{STATE[0]}, by nearest mean")]
    detector = replace(
        planted, **{name: [getattr(planted, name)[i] for i in keep] for name in ("labels", "directions", "thresholds")}
    )
    tested = written_traces(decoupled, write_decoupled, 24, "test")
    cue, state = falsify(
        decoupled, detector, tested, harvest(decoupled, tested, [SITE]), paraphrase=reword_decoupled,
        config=FalsifyConfig(sentences=20, prefixes=2),
    )  # fmt: skip
    assert {each.text for each in cue.cues if each.opening} == set(CUES)
    assert (cue.verdict, state.verdict) == ("cue", "state")
    assert cue.injection.effect.low > 0.5 and cue.removal.effect.high < -0.5
    assert state.injection.fired.value < 0.1 and state.removal.fired.value > 0.6
    assert state.stability.mean > 0.5 > cue.stability.mean


def test_the_card_of_the_model_tells_the_stored_figures():
    """Every verdict and every seed that the folder holds is in its README."""
    folder = bundled_folder("tiny-decoupled")
    figures, card = json.loads((folder / "figures.json").read_text()), (folder / "README.md").read_text()
    assert [figure["seed"] for figure in figures] == [0, 1, 2]
    for name in figures[0]["planted"]:
        verdicts = [figure["planted"][name]["verdict"] for figure in figures]
        assert f"| {name} | {' | '.join(verdicts)} |" in card
        assert set(verdicts) == {"cue"} if name.startswith(CUE[0]) else "cue" not in verdicts
