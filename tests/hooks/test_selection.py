"""Which tokens: the same ones whichever way the model is run, and the ones a plain loop over rows finds."""

import pytest
import torch
from hypothesis import given, strategies as st

from probe.errors import ProbeError
from probe.hooks import Add, Runner, Tokens, capture, edit
from probe.hooks.passes import Pass
from probe.hooks.selection import Selector
from probe.models import load_model

PROMPTS = [[30, 31, 32, 33, 34, 35, 36], [40, 41, 42], [50, 51, 52, 53, 54]]
NEW = 4


@pytest.fixture(scope="module")
def llama(tiny_folder):
    return load_model(tiny_folder("llama", "letters"))


@pytest.fixture(scope="module")
def texts(llama):
    """The greedy continuation of each prompt, by transformers alone."""
    made = []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        kinds = {"max_new_tokens": NEW + 1, "do_sample": False, "eos_token_id": None}
        made.append(llama.hf.generate(ids, attention_mask=torch.ones_like(ids), **kinds)[0].tolist())
    return made


def batch(rows, side="left"):
    """Ids and mask, padded on one side."""
    width = max(map(len, rows))
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        where = slice(width - len(row), None) if side == "left" else slice(0, len(row))
        ids[i, where], mask[i, where] = torch.tensor(row), 1
    return ids, mask


SELECTIONS = {
    "prompt": (Tokens(phase="prompt"), lambda p, n, _: p < n),
    "generation": (Tokens(phase="generation"), lambda p, n, _: p >= n),
    "last of the prompt": (Tokens(positions=-1), lambda p, n, _: p == n - 1),
    "positions": (Tokens(positions=[0, 2, -2]), lambda p, n, _: p in (0, 2, n - 2)),
    "window": (Tokens(window=(1, 4)), lambda p, *_: 1 <= p < 4),
    "open window": (Tokens(window=(-2, None)), lambda p, n, _: p >= n - 2),
    "window of the prompt": (Tokens(window=(None, -1)), lambda p, n, _: p < n - 1),
    "steps": (Tokens(steps=[0, 2]), lambda p, n, _: p - n in (0, 2)),
    "ids": (Tokens(ids=[31, 41, 42, 54]), lambda _p, _n, t: t in (31, 41, 42, 54)),
    "both": (Tokens(phase="prompt", window=(2, None)), lambda p, n, _: 2 <= p < n),
    "either": (Tokens(positions=0) | Tokens(phase="generation"), lambda p, n, _: p == 0 or p >= n),
    "all but": (
        (Tokens(window=(0, None)) - Tokens(ids=41)) | Tokens(ids=41) | Tokens(positions=0),
        lambda _p, _n, t: t != 41,
    ),
    "callable": (Tokens(mask=lambda now: now.position % 2 == 1), lambda p, *_: p % 2 == 1),
}


@torch.no_grad()
@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("way", ["left", "right", "generate", "chunks", "by hand", "Runner"])
def test_the_same_tokens_however_the_model_is_run(llama, texts, name, way):
    tokens, wanted = SELECTIONS[name]
    site = "resid_post.1"
    width = max(map(len, PROMPTS))
    with capture(llama, site, tokens=tokens, prompt_width=width if way == "left" else None) as acts:
        if way == "left":  # the whole text in one pass: prompts end in the same column
            ids, mask = batch(PROMPTS)
            rest = torch.tensor([text[len(prompt) :] for text, prompt in zip(texts, PROMPTS, strict=True)])[:, :NEW]
            llama.hf(torch.cat([ids, rest], 1), attention_mask=torch.cat([mask, torch.ones_like(rest)], 1))
        elif way in ("generate", "chunks"):
            ids, mask = batch(PROMPTS)
            kinds = {"prefill_chunk_size": 2} if way == "chunks" else {}
            kinds |= {"max_new_tokens": NEW + 1, "do_sample": False, "eos_token_id": None}
            llama.hf.generate(ids, attention_mask=mask, **kinds)
        elif way == "Runner":
            runner = Runner(llama, PROMPTS, NEW + 1)
            step = runner.prefill()
            for _ in range(NEW):
                step = runner.step(step.logits.argmax(-1))
        else:
            ids, mask = batch(PROMPTS, "right" if way == "right" else "left")
            cache = None
            for i in range(NEW + 1):
                position = mask.cumsum(1)[:, -ids.shape[1] :].sub(1).clamp(min=0)
                out = llama.hf(ids, attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=True)
                cache = out.past_key_values
                ids = torch.tensor([[text[len(prompt) + i]] for text, prompt in zip(texts, PROMPTS, strict=True)])
                mask = torch.cat([mask, torch.ones_like(ids)], 1)
    expected, rows, positions = [], [], []
    for row, (prompt, text) in enumerate(zip(PROMPTS, texts, strict=True)):
        read = text[: len(prompt) + NEW]
        with capture(llama, site) as single:
            llama.hf(torch.tensor([read]))
        for position, token in enumerate(read):
            if wanted(position, len(prompt), token):
                expected.append(single[site][0, position])
                rows.append(row)
                positions.append(position)
    assert acts.rows.tolist() == rows
    assert acts.positions.tolist() == positions
    torch.testing.assert_close(acts[site], torch.stack(expected), atol=2e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", SELECTIONS)
def test_edits_at_selected_tokens_are_those_of_single_rows(llama, texts, name, side):
    """A batch, padded on either side, edited where the selection says, gives the logits of rows edited by hand."""
    tokens, wanted = SELECTIONS[name]
    v = torch.randn(llama.d_model, generator=torch.Generator().manual_seed(0))
    ids, mask = batch(texts, side)
    position = (mask.cumsum(1) - 1).clamp(min=0)
    if name in ("generation", "steps", "either"):  # one pass over the whole text is all prompt
        with pytest.raises(ProbeError, match="selected no token"), edit(llama, {"resid_post.1": v}, tokens=tokens):
            llama.hf(ids, attention_mask=mask, position_ids=position)
        return
    with edit(llama, {"resid_post.1": v}, tokens=tokens):
        logits = llama.hf(ids, attention_mask=mask, position_ids=position).logits
    for row, text in enumerate(texts):
        where = torch.tensor([wanted(p, len(text), t) for p, t in enumerate(text)])
        with edit(llama, {"resid_post.1": lambda hidden, where=where: hidden + where[:, None] * v}):
            single = llama.hf(torch.tensor([text])).logits[0]
        torch.testing.assert_close(logits[row][mask[row].bool()], single, atol=5e-5, rtol=1e-4)


@torch.no_grad()
def test_edited_cached_generation_is_edited_uncached_generation(llama):
    """Steer only what is generated: the cached batch, and every step run anew from the whole text, agree."""
    v = 2 * torch.randn(llama.d_model, generator=torch.Generator().manual_seed(1))
    ids, mask = batch(PROMPTS)
    kinds = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    changes = {"resid_post.1": Add(v, tokens=Tokens(phase="generation"))}
    with edit(llama, changes):
        cached = llama.hf.generate(ids, attention_mask=mask, **kinds)
        uncached = llama.hf.generate(ids, attention_mask=mask, use_cache=False, **kinds)
    assert torch.equal(cached, uncached)
    assert not torch.equal(cached, llama.hf.generate(ids, attention_mask=mask, **kinds))


@torch.no_grad()
def test_a_gate_may_look_at_another_site(llama):
    """Steer at block 2 where the coordinate at block 0 is positive: conditional on the model's own state."""
    v = torch.randn(llama.d_model, generator=torch.Generator().manual_seed(2))
    ids = torch.tensor([PROMPTS[0]])
    with capture(llama, ["resid_post.0", "resid_post.2"]) as plain:
        llama.hf(ids)
    with capture(llama, "resid_post.0", stop=False) as seen:
        gate = Tokens(mask=lambda _: seen.latest("resid_post.0")[..., 0] > 0)
        with edit(llama, {"resid_post.2": Add(v, tokens=gate)}), capture(llama, "resid_post.2", stop=False) as acts:
            llama.hf(ids)
    where = plain["resid_post.0"][..., :1] > 0
    assert where.any() and not where.all()
    assert torch.equal(acts["resid_post.2"], torch.where(where, plain["resid_post.2"] + v, plain["resid_post.2"]))


@torch.no_grad()
def test_tables_of_booleans_by_position_and_by_step(llama, texts):
    ids, mask = batch(PROMPTS)
    kinds = {"attention_mask": mask, "max_new_tokens": NEW + 1, "do_sample": False, "eos_token_id": None}
    by_step = torch.tensor([[True, False, True], [False, False, False], [False, True, False]])
    with capture(llama, "embed", tokens=Tokens(steps=by_step)) as acts:
        llama.hf.generate(ids, **kinds)
    assert [(r, p - len(PROMPTS[r])) for r, p in zip(acts.rows.tolist(), acts.positions.tolist(), strict=True)] == [
        (0, 0), (0, 2), (2, 1),
    ]  # fmt: skip
    by_position = torch.zeros(3, 6, dtype=torch.bool)
    by_position[0, 5] = by_position[1, 0] = by_position[2, 5] = True
    with capture(llama, "embed", tokens=Tokens(mask=by_position)) as acts:
        llama.hf.generate(ids, **kinds)
    assert list(zip(acts.rows.tolist(), acts.positions.tolist(), strict=True)) == [(0, 5), (1, 0), (2, 5)]
    table = llama.hf.get_input_embeddings().weight
    assert torch.equal(acts["embed"], table[[PROMPTS[0][5], PROMPTS[1][0], texts[2][5]]])


@given(st.data())
def test_masks_are_those_of_a_plain_loop(data):
    """Any clause of positions, a window, spans and ids, on any batch of texts, padded anywhere."""
    rows = data.draw(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 4)), min_size=1, max_size=3))
    side, width = data.draw(st.sampled_from(["left", "right"])), max(n + g for n, g in rows)
    ids = torch.tensor(data.draw(st.lists(st.integers(0, 5), min_size=width * len(rows), max_size=width * len(rows))))
    ids, real = ids.view(len(rows), width), torch.zeros(len(rows), width, dtype=torch.bool)
    for i, (n, g) in enumerate(rows):
        real[i, slice(width - n - g, None) if side == "left" else slice(0, n + g)] = True
    n_prompt = torch.tensor([n for n, _ in rows])
    position = real.long().cumsum(1) - 1
    now = Pass(ids, real, position, n_prompt, position >= n_prompt[:, None], torch.arange(len(rows)), len(rows))
    numbers = st.integers(-4, 8)
    positions = data.draw(st.none() | st.lists(numbers, min_size=1, max_size=3))
    start, stop = data.draw(st.none() | st.integers(-4, 3)), data.draw(st.none() | st.integers(5, 9))
    chosen = data.draw(st.none() | st.sets(st.integers(0, 5), min_size=1))
    cuts = [sorted(data.draw(st.sets(st.integers(0, 9), max_size=4))) for _ in rows]
    spans = [list(zip(cut[::2], cut[1::2], strict=False)) for cut in cuts]
    clause = Tokens(window=(start, stop), positions=positions, ids=chosen, spans=spans)
    mask = Selector(clause).mask(now)
    for i, (n, _) in enumerate(rows):
        for column in range(width):
            p = int(position[i, column])
            expected = bool(
                real[i, column]
                and (positions is None or any(p == (q if q >= 0 else n + q) for q in positions))
                and (start is None or p >= (start if start >= 0 else n + start))
                and (stop is None or p < stop)
                and (chosen is None or int(ids[i, column]) in chosen)
                and any(a <= p < b for a, b in spans[i])
            )
            assert bool(mask[i, column]) == expected


@torch.no_grad()
@pytest.mark.parametrize("pool", ["mean", "sum", "max", "last"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_pooled_by_span_and_by_row(llama, texts, pool, side):
    ids, mask = batch(texts, side)
    position = (mask.cumsum(1) - 1).clamp(min=0)
    spans = [[(4, 6), (1, 3)], [], [(0, 5)]]
    how = {"mean": lambda t: t.mean(0), "sum": lambda t: t.sum(0), "max": lambda t: t.amax(0), "last": lambda t: t[-1]}
    with capture(llama, ["resid_post.2", "z.1"]) as whole:
        llama.hf(ids, attention_mask=mask, position_ids=position)
    with capture(llama, ["resid_post.2", "z.1"], tokens=Tokens(spans=spans), pool=pool) as acts:
        llama.hf(ids, attention_mask=mask, position_ids=position)
    assert acts.rows.tolist() == [0, 0, 2]
    assert acts.positions.tolist() == [1, 4, 0]
    for site in ("resid_post.2", "z.1"):
        own = [whole[site][row][mask[row].bool()] for row in range(3)]
        expected = torch.stack([how[pool](own[r][a:b]) for r, a, b in [(0, 1, 3), (0, 4, 6), (2, 0, 5)]])
        torch.testing.assert_close(acts[site], expected)
    with capture(llama, "resid_post.2", tokens=Tokens(window=(1, 4)), pool=pool) as acts:
        llama.hf(ids, attention_mask=mask, position_ids=position)
    own = [whole["resid_post.2"][row][mask[row].bool()] for row in range(3)]
    torch.testing.assert_close(acts["resid_post.2"], torch.stack([how[pool](row[1:4]) for row in own]))


@torch.no_grad()
def test_rows_that_have_ended_are_not_read(llama):
    """A row that leaves the batch is run along for a while; its further columns are no text."""
    with capture(llama, "embed", tokens=Tokens(phase="generation")) as acts:
        runner = Runner(llama, [*PROMPTS, PROMPTS[0], PROMPTS[1]], 6)
        runner.prefill()
        runner.step(torch.tensor([5, 6, 7, 8, 9]))
        runner.keep(torch.tensor([0, 2, 3, 4]))
        runner.step(torch.tensor([10, 11, 12, 13]))
        runner.keep(torch.tensor([2]))
        runner.step(torch.tensor([14]))
    table = llama.hf.get_input_embeddings().weight
    assert acts.rows.tolist() == [0, 0, 1, 2, 2, 3, 3, 3, 4, 4]
    assert torch.equal(acts["embed"], table[[5, 10, 6, 7, 11, 8, 12, 14, 9, 13]])


@torch.no_grad()
def test_what_selects_nothing_is_an_error(llama):
    ids = torch.tensor([PROMPTS[1]])
    said = r"Tokens\(positions=7\) selected no token"
    with pytest.raises(ProbeError, match=said), edit(llama, {"embed": Add(torch.ones(32), tokens=Tokens(positions=7))}):
        llama.hf(ids)
    one_of_two = Tokens(positions=0) | Tokens(ids=199)
    with pytest.raises(ProbeError, match=r"ids=199"), capture(llama, "embed", tokens=one_of_two):
        llama.hf(ids)
    with (
        pytest.raises(ProbeError, match="excludes every token that it selects"),
        capture(llama, "embed", tokens=Tokens(positions=0) - Tokens(phase="prompt")),
    ):
        llama.hf(ids)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Tokens(), "selects nothing in particular"),
        (lambda: Tokens(phase="thinking"), "unknown phase 'thinking'"),
        (lambda: Tokens(window=(4, 4)), "is empty"),
        (lambda: Tokens(window=(-1, -3)), "is empty"),
        (lambda: Tokens(ids=[]), "selects no ids"),
        (lambda: Tokens(spans=[[(3, 3)]]), "is empty or begins before"),
        (lambda: Tokens(spans=[[(0, 3), (2, 5)]]), "overlap"),
        (lambda: Tokens(ids=1) - (Tokens(ids=1) - Tokens(ids=2)), "cannot itself be excluded"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_clauses_that_make_no_sense(make, said):
    with pytest.raises(ProbeError, match=said):
        make()


@torch.no_grad()
@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (Tokens(spans=[[(0, 1)]] * 2), "spans of 2 rows for a batch of 1"),
        (Tokens(mask=torch.ones(2, 3, dtype=torch.bool)), "mask of 2 rows for a batch of 1"),
        (Tokens(steps=torch.ones(3, dtype=torch.bool)), "steps must be booleans of shape"),
        (Tokens(mask=lambda now: now.position), r"the mask function gave int64 of shape \[1, 3\]"),
    ],
)
def test_tables_that_do_not_fit(llama, tokens, said):
    with pytest.raises(ProbeError, match=said), capture(llama, "embed", tokens=tokens):
        llama.hf(torch.tensor([PROMPTS[1]]))


def test_selections_show_themselves():
    assert repr(Tokens(phase="prompt") | Tokens(ids=3) - Tokens(positions=[0])) == (
        "Tokens(phase='prompt') | Tokens(ids=3) - Tokens(positions=[0])"
    )
    table = torch.ones(2, 3, dtype=torch.bool)
    assert repr(Tokens(mask=table)) == repr(Tokens(gate=table)) == "Tokens(mask=<bool [2, 3]>)"
