"""Sentences are read again where they stood, every test is kept, and poor input gives a clear answer."""

import random
from dataclasses import dataclass, field
from inspect import unwrap
from itertools import cycle

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers_of_all_kinds import KINDS
from transformers import PreTrainedTokenizerFast

from probe.activations import SentenceActivations, harvest
from probe.errors import ProbeError
from probe.models import Model, load_model
from probe.organisms.documents import join, wander
from probe.problems import Problem, load_problems
from probe.problems.story.story import draw_story
from probe.problems.story.wordings import reword
from probe.taxonomy.falsify import Detector, FalsifyConfig, falsify, read_cards
from probe.taxonomy.falsify.content import Content, shuffled
from probe.taxonomy.falsify.paraphrase import by_judge
from probe.taxonomy.falsify.regenerate import sample_sentences
from probe.taxonomy.falsify.reread import ContextReader
from probe.taxonomy.judge.judge import ScriptedJudge
from probe.traces import Traces, make_trace

SITE = "resid_post.1"
SMALL = FalsifyConfig(sentences=4, prefixes=0)


@dataclass
class Directions:
    """Fires where a direction of its own is above a quantile."""

    x: torch.Tensor
    n_behaviours: int = 2
    share: float = 0.3
    site: str = SITE
    labels: list[str] = field(default_factory=lambda: ["a", "b"])
    calls: int = 0
    fail_at: int | None = None

    def fires(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        d = torch.randn(self.n_behaviours, self.x.shape[1], generator=torch.Generator().manual_seed(1))
        return x @ d.T > (self.x @ d.T).quantile(1 - self.share, dim=0)


def traces_of(model: Model, texts: list[str], encode=None) -> Traces:
    problems = load_problems("story")
    rows = [
        make_trace(
            model, problems, Problem(str(i), f"Q{i}", "1"),
            (encode or model.tokenizer)(text, add_special_tokens=False)["input_ids"], False,
        )
        for i, text in enumerate(texts)
    ]  # fmt: skip
    return Traces(model.name, "story", rows)


@pytest.fixture(scope="module")
def model(tiny_folder):
    return load_model(str(tiny_folder("llama")), device="cpu")


@pytest.fixture(scope="module")
def traces(model):
    texts = []
    for i in range(5):
        rng = random.Random(i)
        texts.append(join(wander(draw_story(rng, 2), rng)))
    return traces_of(model, texts)


@pytest.fixture(scope="module")
def read(model, traces):
    return harvest(model, traces, [SITE])


def unchanged(model, traces, activations):
    reader = ContextReader.of(model, traces, activations, SITE, 4096)
    rows = list(range(len(activations)))
    ids = [reader.encode(row, reader.text(row)) for row in rows]
    assert None not in ids
    return reader.read(rows, ids), activations.vectors[SITE]


def test_an_unchanged_sentence_is_read_as_it_was_harvested(arch, tiny_folder):
    model = load_model(str(tiny_folder(arch, "letters")), device="cpu")
    traces = traces_of(model, [" Wait, no. Let us see.\n\nSo 2 + 2 = 4. Héé!\n\n Done.", "One. Two."])
    now, before = unchanged(model, traces, harvest(model, traces, [SITE]))
    assert torch.allclose(now, before, atol=1e-4)


def test_so_it_is_with_words_and_in_long_traces(model, traces, read):
    now, before = unchanged(model, traces, read)
    assert torch.allclose(now, before, atol=1e-4)


def test_a_changed_sentence_changes_and_its_context_does_not(model, traces, read):
    reader = ContextReader.of(model, traces, read, SITE, 4096)
    row = 3
    ids = reader.encode(row, f" Again,{reader.text(row)}")
    assert model.decode(ids) == f" Again,{reader.text(row)}"
    assert not torch.allclose(reader.read([row], [ids]), read.vectors[SITE][row], atol=1e-3)


def test_text_that_the_tokenizer_cannot_write_is_refused(model, traces, read):
    reader = ContextReader.of(model, traces, read, SITE, 4096)
    assert reader.encode(0, " Hippopotamus.") is None


def test_a_tokenizer_that_begins_every_text_with_a_space(tiny_folder):
    """As SentencePiece does: the second word of a text alone is not what it is in the text."""
    pieces = ["<unk>", "▁Now", "▁wait", "▁no", "▁yes", "▁", "."]
    backend = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="always"), pre_tokenizers.Punctuation()]
    )
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    hf = load_model(str(tiny_folder("llama")), device="cpu").hf
    model = Model(hf, tokenizer)
    traces = traces_of(model, ["Now no. Now yes. Now no."])
    activations = harvest(model, traces, [SITE])
    reader = ContextReader.of(model, traces, activations, SITE, 4096)
    assert reader.text(1) and reader.encode(1, " Now wait.") == (1, 2, 6)


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback", "byte_fallback_plain", "metaspace_first", "suffixes"])
def test_changed_sentences_keep_their_spaces(kind, tiny_folder):
    """Sentences are found, changed and written where they stand by tokenizers of every kind."""
    tokenizer = KINDS[kind]()
    hf = load_model(str(tiny_folder("llama", "letters")), device="cpu").hf
    hf.resize_token_embeddings(len(tokenizer))
    model = Model(hf, tokenizer)
    traces = traces_of(model, ["The answer is 7. Wait, no answer is 31. 是的 it is 7 🙂. Wait, it is 22."] * 2)
    activations = harvest(model, traces, [SITE])
    reader = ContextReader.of(model, traces, activations, SITE, 4096)
    n = len(traces[0].sentences)
    assert n >= 3 and len(reader.index) == 2 * n
    assert "".join(reader.text(row) for row in range(n)) == traces[0].text
    for row in range(2 * n):
        assert reader.encode(row, reader.text(row)) == reader.own_ids(row)
    x = activations.vectors[SITE]
    for card in falsify(model, Directions(x, share=0.5), traces, activations, config=SMALL):
        for trial in (card.injection, card.removal):
            assert trial.unwritten == 0
            assert trial.fired.n > 0 or not card.cues


def test_activations_of_another_model_are_refused(model, traces, read, tiny_folder):
    other = load_model(str(tiny_folder("llama", seed=1)), device="cpu")
    with pytest.raises(ProbeError, match=r"are not those of .* on these traces"):
        falsify(other, Directions(read.vectors[SITE]), traces, read)
    with pytest.raises(ProbeError, match="which the 2 traces do not hold"):
        falsify(model, Directions(read.vectors[SITE]), traces[:2], read)


def test_what_is_no_detector_or_was_not_harvested_is_refused(model, traces, read):
    with pytest.raises(ProbeError, match="object cannot be falsified"):
        unwrap(falsify)(model, object(), traces, read)  # without the checks of types that tests add
    with pytest.raises(ProbeError, match="was not harvested"):
        falsify(model, Directions(read.vectors[SITE], site="resid_post.3"), traces, read)
    assert isinstance(Directions(read.vectors[SITE]), Detector)


def test_activations_that_are_not_finite_are_refused(model, traces, read):
    x = read.vectors[SITE].clone()
    x[2] = float("nan")
    broken = SentenceActivations({SITE: x}, read.index, read.texts, read.model_name)
    with pytest.raises(ProbeError, match=r"1 of .* not finite"):
        falsify(model, Directions(read.vectors[SITE]), traces, broken)


def test_an_interrupted_run_resumes(model, traces, read, tmp_path):
    config = FalsifyConfig(sentences=4, prefixes=1, samples=2, new_tokens=12)

    def begin(folder, **kwargs):
        detector = Directions(read.vectors[SITE], **kwargs)
        return falsify(model, detector, traces, read, paraphrase=reword, config=config, folder=folder), detector.calls

    whole, calls = begin(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path / "killed", fail_at=calls - 4)
    again, fewer = begin(tmp_path / "killed")
    assert again == whole == read_cards(tmp_path / "killed")
    assert fewer <= 7 < calls, "what fires at first, and what the kill had left undone"
    with pytest.raises(ProbeError, match="holds tests with another seed"):
        falsify(
            model, Directions(read.vectors[SITE]), traces, read, paraphrase=reword, config=config, seed=1,
            folder=tmp_path / "whole",
        )  # fmt: skip


def test_cards_say_how_much_was_tried(model, traces, read):
    config = FalsifyConfig(sentences=4, prefixes=2, samples=3, new_tokens=12)
    card = falsify(model, Directions(read.vectors[SITE]), traces, read, paraphrase=reword, config=config)[0]
    assert card.sentences == Directions(read.vectors[SITE]).fires(read.vectors[SITE])[:, 0].sum()
    assert card.injection.effect.n <= card.injection.fired.n <= config.sentences
    assert card.paraphrase.fired.n + card.paraphrase.excluded == config.sentences
    assert (card.stability.prefixes, card.stability.samples) == (2, 3)
    assert card.stability.expected == pytest.approx(card.share)


def test_a_behaviour_without_sentences_and_one_with_all(model, traces, read):
    for share, reason in ((0.0, "fires in no sentence"), (1.01, "there is no cue word")):
        detector = Directions(read.vectors[SITE], share=min(share, 1.0))
        if share > 1:
            detector.fires = lambda x: torch.ones(len(x), 2, dtype=torch.bool)
        for card in falsify(model, detector, traces, read, paraphrase=reword, config=SMALL):
            assert card.verdict == "undecided"
            assert reason in card.reasons[0]


def test_one_sentence_alone_and_none_at_all(model):
    single = traces_of(model, [" Now 2 + 3 = 5."])
    read = harvest(model, single, [SITE])
    detector = Directions(read.vectors[SITE], share=1.0)
    assert {card.verdict for card in falsify(model, detector, single, read, config=SMALL)} == {"undecided"}
    empty = traces_of(model, [])
    none = harvest(model, empty, [SITE])
    detector.x = read.vectors[SITE]
    assert {card.verdict for card in falsify(model, detector, empty, none, config=SMALL)} == {"undecided"}


def test_a_judge_that_answers_nonsense_costs_nothing(model, traces, read):
    detector = Directions(read.vectors[SITE])
    answers = cycle((None, "", "a\nb", "x" * 1000))
    card = falsify(model, detector, traces, read, judge=ScriptedJudge(lambda _: next(answers)), config=SMALL)[0]
    assert card.paraphrase.fired.n == 0
    assert card.paraphrase.excluded == SMALL.sentences
    assert any("not tried" in reason for reason in card.reasons)


def test_a_judge_is_asked_to_do_without_the_cues():
    asked = []
    rewrite = by_judge(ScriptedJudge(lambda prompt: asked.append(prompt) or ' "We look again." '))
    assert rewrite([" Wait, no.", " Hold on."], ["Wait,", "Hold"]) == ["We look again."] * 2
    assert all("Do not use: Wait,, Hold." in prompt for prompt in asked)
    assert asked[0].endswith("Sentence: Wait, no.")
    rewrite([" Now."], [])
    assert "Do not use" not in asked[-1]


def test_one_sentence_is_sampled_and_the_seed_decides(model, traces, read):
    reader = ContextReader.of(model, traces, read, SITE, 4096)
    prefixes = [reader.prefix(row) for row in (2, 7, 4)]
    config = FalsifyConfig(samples=4, new_tokens=20)
    found = sample_sentences(model, prefixes, config, 0)
    assert [len(each) for each in found] == [4, 4, 4]
    assert found == sample_sentences(model, prefixes, config, 0) != sample_sentences(model, prefixes, config, 1)
    sure = sample_sentences(model, prefixes, FalsifyConfig(samples=2, new_tokens=20, top_p=1e-6), 0)
    assert all(a == b for a, b in sure), "the likeliest token alone leaves no choice"


def test_content_is_projected_out_and_what_is_not_content_stays():
    generator = torch.Generator().manual_seed(0)
    question = [i // 20 for i in range(400)]
    topics = torch.zeros(20, 16)
    topics[:, :3] = 5 * torch.randn(20, 3, generator=generator)
    own = torch.randn(400, 16, generator=generator)
    x = 2 + own + topics[question]
    left = Content.of(x, question, 3)(x)
    assert torch.allclose(left.mean(0), x.mean(0), atol=1e-4)
    assert left[:, :3].var(0).max() < 0.2
    assert torch.nn.functional.cosine_similarity(left[:, 3:] - 2, own[:, 3:]).min() > 0.8
    other = shuffled(question, 0)
    assert sorted(other) == question != other
    assert torch.equal(Content.of(x, [0] * 400, 3)(x), x)
