"""Many prompts through a few places: each text is what its prompt alone gives, whoever else is under way."""

import pytest
import torch

from probe.hooks import Lane, Tokens, capture, stream
from probe.models import ModelConfig, load_model

PROMPTS = [[6 + i, *range(40 + i, 42 + 3 * i)] for i in range(9)]
NEW = 12


@pytest.fixture
def model(arch, tiny_folder):
    return load_model(ModelConfig(str(tiny_folder(arch, tokenizer="letters"))), device="cpu")


def likeliest(now):
    """Greedy, and on record which item and which token in it."""
    return now.steps[0].logits.argmax(-1), now.items, now.counts, now.last, now.items / 3, now.items % 2 == 0


def decode(model, *, ends=(), slots=3, late=False, prompts=PROMPTS, choose=likeliest, new=NEW):
    found = stream([Lane(model, prompts)], choose, ends=set(ends), max_new_tokens=new, slots=slots, late=late)
    done = {item: (columns, truncated) for item, columns, truncated in found}
    assert set(done) == set(range(len(prompts)))
    return done


def alone(model, prompt, ends, new=NEW):
    """By transformers, without a cache."""
    tokens = []
    for _ in range(new):
        with torch.no_grad():
            token = int(model.hf(torch.tensor([[*prompt, *tokens]])).logits[0, -1].argmax())
        if token in ends:
            return tokens, False
        tokens.append(token)
    return tokens, True


def some_ends(model):
    """Tokens that end about half of the texts somewhere on their way."""
    texts = [alone(model, prompt, ())[0] for prompt in PROMPTS]
    return {texts[1][3], texts[4][0], texts[6][7], texts[7][NEW - 1]}


@pytest.mark.parametrize("late", [False, True])
def test_each_text_is_what_its_prompt_alone_gives(model, late):
    ends = some_ends(model)
    done = decode(model, ends=ends, late=late)
    lengths = set()
    for item, (columns, truncated) in done.items():
        tokens, items, counts, last, thirds, even = columns
        assert (tokens, truncated) == alone(model, PROMPTS[item], ends)
        assert (items, counts) == ([item] * len(tokens), list(range(len(tokens))))
        assert last == [-1, *tokens][: len(tokens)]
        assert thirds == [float(torch.tensor(item) / 3)] * len(tokens), "floating-point columns are exact"
        assert even == [item % 2 == 0] * len(tokens)
        lengths.add(len(tokens))
    assert len(lengths) > 3, "all texts are alike: the test says nothing"


@pytest.mark.parametrize("slots", [1, 4, 9, 50])
def test_places_do_not_matter(tiny_folder, slots):
    model = load_model(ModelConfig(str(tiny_folder("llama", tokenizer="letters"))), device="cpu")
    ends = some_ends(model)
    assert decode(model, ends=ends, slots=slots) == decode(model, ends=ends, slots=3, late=True)


def test_a_step_waits_for_the_device_once(tiny_folder):
    """What was chosen is fetched with what the next step asks: then nothing else is read from the device in a step."""
    model = load_model(ModelConfig(str(tiny_folder("llama", tokenizer="letters"))), device="cpu")
    asked = []

    def choose(now):
        asked.append(now.fetch(now.items % 2))
        assert asked[-1] == [item % 2 for item in now.items.tolist()]
        return likeliest(now)

    ends = some_ends(model)
    assert decode(model, ends=ends, late=True, choose=choose) == decode(model, ends=ends)


def test_one_token_and_no_prompt_at_all(tiny_folder):
    model = load_model(ModelConfig(str(tiny_folder("llama", tokenizer="letters"))), device="cpu")
    for late in (False, True):
        done = decode(model, new=1, late=late)
        assert all(len(columns[0]) == 1 and truncated for columns, truncated in done.values())
    assert decode(model, prompts=[]) == {}


def test_tokens_are_told_apart_while_a_block_looks_on(tiny_folder):
    """Then no place is filled again before all are free, and every token read is a token of the text."""
    model = load_model(ModelConfig(str(tiny_folder("llama", tokenizer="letters"))), device="cpu")
    ends = some_ends(model)
    plain = decode(model, ends=ends)
    seen = []

    def choose(now):
        seen.append(len(now.items))
        return likeliest(now)

    with capture(model, "embed", tokens=Tokens(phase="generation")) as acts:
        assert decode(model, ends=ends, late=None, choose=choose) == plain
    last = [plain[item][0] for item in (6, 7, 8)]
    assert len(acts["embed"]) == sum(
        max(0, len(columns[0]) - plain[item][1]) for item, columns in zip((6, 7, 8), last, strict=True)
    )
