"""Many prompts through a few places: each text is what its prompt alone gives, whoever else is under way."""

import pytest
import torch

from benchmarks.peak import Peak
from probe.hooks import Lane, Runner, Tokens, capture, stream
from probe.hooks.decoding.room import row_bytes, token_bytes
from probe.models import Model, ModelConfig, load_model
from tests.supported_models import tokenizer
from tests.tiny_models import tiny_config, tiny_model

PROMPTS = [[6 + i, *range(40 + i, 42 + 3 * i)] for i in range(9)]
NEW = 12


@pytest.fixture
def model(some_arch, tiny_folder):
    return load_model(ModelConfig(str(tiny_folder(some_arch, tokenizer="letters"))), device="cpu")


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


@pytest.mark.parametrize("late", [False, True])
def test_memory_that_runs_out_halves_the_rows_and_changes_no_text(tiny_folder, monkeypatch, caplog, late):
    model = load_model(ModelConfig(str(tiny_folder("llama", tokenizer="letters"))), device="cpu")
    ends = some_ends(model)
    plain, steps, sizes, step = decode(model, ends=ends, slots=4), [], [], Runner.step

    def fails_once(runner, tokens):
        steps.append(1)
        if len(steps) == 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(runner, tokens)

    def choose(now):
        sizes.append(len(now.items))
        return likeliest(now)

    monkeypatch.setattr(Runner, "step", fails_once)
    items = [
        (item, (columns, truncated))
        for item, columns, truncated in stream(
            [Lane(model, PROMPTS)], choose, ends=ends, max_new_tokens=NEW, slots=4, late=late
        )
    ]
    assert len(items) == len(dict(items)), "an item came twice"
    assert dict(items) == plain
    assert max(sizes[:5]) == 4 and max(sizes[5:]) == 2
    assert len([record for record in caplog.records if "trying again with size 2" in record.message]) == 1


def test_memory_decides_how_many_rows_there_are(tiny_folder):
    model = load_model(ModelConfig(str(tiny_folder("llama", tokenizer="letters"))), device="cpu")
    plain, sizes = decode(model, slots=9), []

    def choose(now):
        sizes.append(len(now.items))
        return likeliest(now)

    model.memory = 3 * row_bytes(model, max(map(len, PROMPTS)) + NEW)
    assert decode(model, slots=9, choose=choose) == plain
    assert max(sizes) == 3
    model.memory = 0
    assert decode(model, slots=9) == plain


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "gpt_neox", "gptj", "mpt", "gpt_bigcode", "falcon"])
def test_bytes_of_a_token_are_what_the_cache_takes(kind):
    model = Model(tiny_model(tiny_config(kind)), tokenizer())
    runner = Runner(model, [[5, 6, 7]], 6)
    runner.prefill()
    held = sum(store.nbytes for store in runner.cache.stores.values())
    assert held / runner.cache.capacity == token_bytes(model)


def test_keys_and_values_take_little_more_than_the_rows_that_are_alive(tiny_folder):
    """Rows of very different lengths through few slots: each is padded to the longest, and little is free."""
    model = load_model(ModelConfig(str(tiny_folder("llama", tokenizer="letters"))), device="cpu")
    lengths = 10 + torch.randint(90, (120,), generator=torch.Generator().manual_seed(0))
    alive, held = [0], [0]

    def choose(now):
        (runner,) = now.runners
        alive.append(len(now.items) * (int(now.counts.max()) + 3))
        held.append(sum(store.nbytes for store in runner.cache.stores.values()))
        return (torch.where(now.counts >= lengths[now.items] - 1, 2, 5),)

    prompts = [[6, 7 + item % 40, 8][: 1 + item % 3] for item in range(len(lengths))]
    with Peak() as peak:
        done = sum(1 for _ in stream([Lane(model, prompts)], choose, ends={2}, max_new_tokens=100, slots=30))
    assert done == len(lengths)
    ideal = max(alive) * token_bytes(model)
    assert max(held) <= 1.35 * ideal  # 32 columns are free at least, which is much of such short rows
    assert peak.peak <= 1.6 * ideal
