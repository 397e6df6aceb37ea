"""The table of the sites of a model."""

import pytest

from probe.errors import ProbeError
from probe.models import ARCHITECTURES, KINDS, load_model, site_table


def test_a_line_a_kind_with_its_names(tiny_folder):
    table = site_table(str(tiny_folder("gpt2", "letters")))
    rows = {row[0]: row[1:] for row in table.rows}
    assert list(rows) == [f"{name}.i" if kind.layered else name for name, kind in KINDS.items()]
    assert rows["q.i"] == (
        "batch pos n_heads d_head",
        "queries, before any norm and rotation",
        "transformer.h[i].attn.c_attn.output, a part of it",
        "blocks.i.attn.hook_q",
    )
    assert "transformer.h[i].attn.c_attn.output, a part of it" in str(table)
    assert repr(table).count("\n") == 0 and "15 kinds of site" in repr(table)
    assert rows["resid_pre.i"][2] == "transformer.h[i].input"
    assert "(gpt2): layers 0 to 3, d_model 32, 4 heads of 8, 4 of keys and values, vocab 260" in table.about


def test_what_is_lacking_says_why(tiny_folder):
    table = site_table(load_model(tiny_folder("gpt_neox", "letters")))
    (row,) = (row for row in table.rows if row[0] == "resid_mid.i")
    assert row[3] == "none: attention and MLP read the same residual stream, so there is none between them"
    assert "none between them" in table._repr_html_() and "<table>" in table._repr_html_()


def test_an_unknown_architecture_is_refused(tiny_folder, monkeypatch):
    monkeypatch.delitem(ARCHITECTURES, "llama")
    with pytest.raises(ProbeError, match="name a module by its path instead"):
        site_table(str(tiny_folder("llama", "letters")))
