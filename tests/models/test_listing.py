"""The table of the sites of a model."""

from probe.models import ARCHITECTURES, KINDS, load_model, site_table
from tests.tiny_models import tiny_config, tiny_model


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
    assert repr(table).count("\n") == 0 and "21 kinds of site" in repr(table)
    assert rows["resid_pre.i"][2] == "transformer.h[i].input"
    assert "(gpt2): layers 0 to 3, d_model 32, 4 heads of 8, 4 of keys and values, vocab 260" in table.about


def test_what_is_lacking_says_why(tiny_folder):
    table = site_table(load_model(tiny_folder("gpt_neox", "letters")))
    (row,) = (row for row in table.rows if row[0] == "resid_mid.i")
    assert row[3] == "none: attention and MLP read the same residual stream, so there is none between them"
    assert "none between them" in table._repr_html_() and "<table>" in table._repr_html_()


def test_the_place_of_each_layer_is_said_where_layers_differ(tmp_path, letters):
    tiny_model(tiny_config("qwen3_moe", decoder_sparse_step=2)).save_pretrained(tmp_path)
    letters.save_pretrained(tmp_path)
    rows = {row[0]: row[3:] for row in site_table(str(tmp_path)).rows}
    assert rows["mlp_pre.i"] == ("model.layers[i].mlp.gate_proj.output in layers 0, 2", "blocks.i.mlp.hook_pre")
    assert rows["experts.i"] == ("model.layers[i].mlp.gate.output[2] in layers 1, 3", "none")
    assert rows["mlp_out.i"][0] == "model.layers[i].mlp.output"
    assert rows["shared_out.i"][0] == "none: qwen3_moe models have none"


def test_the_factor_of_a_contribution_is_said(tmp_path, letters):
    tiny_model(tiny_config("granite", residual_multiplier=0.22)).save_pretrained(tmp_path)
    letters.save_pretrained(tmp_path)
    rows = {row[0]: row[3] for row in site_table(str(tmp_path)).rows}
    assert rows["attn_out.i"] == "model.layers[i].self_attn.output, times 0.22"


def test_an_unknown_architecture_has_the_sites_that_a_trial_finds(tiny_folder, monkeypatch):
    monkeypatch.delitem(ARCHITECTURES, "llama")
    rows = {row[0]: row[3] for row in site_table(str(tiny_folder("llama", "letters"))).rows}
    found = [kind for kind, where in rows.items() if where == "found by a trial when the model is loaded"]
    assert found == ["embed", "resid_pre.i", "resid_post.i", "final_norm", "logits"]
    assert rows["z.i"].startswith("none: ")
    rows = {row[0]: row[3] for row in site_table(load_model(tiny_folder("llama", "letters"))).rows}
    assert rows["resid_post.i"] == "model.layers[i].output" and rows["final_norm"] == "model.norm.output"
