"""What a run found, to be looked at: a page that stands alone, figures for Jupyter, a table for the terminal.

Everything here reads the run folder's files (``results.json`` is the contract) and computes nothing of its own.
"""

from probe.reports.adapter_figures import study_figure, tuning_figure, verification_figure
from probe.reports.adapter_page import adapter_card, write_adapter_report, write_study
from probe.reports.attention_view import (
    attention_patterns,
    colored_tokens,
    receivers_figure,
    sentence_figure,
    write_attention,
)
from probe.reports.behaviour_figures import (
    cards_figure,
    grid_figure,
    map_figure,
    timeline_figure,
    transition_figure,
    usage_figure,
)
from probe.reports.behaviour_page import discovery_table, write_discovery_report
from probe.reports.bits_figure import bits_figure
from probe.reports.circuit_figures import circuit_figure, faithfulness_figure, heads_figure
from probe.reports.circuit_page import circuit_table, write_circuit_report
from probe.reports.compare import comparison_figure, comparison_table, differences_table, write_comparison
from probe.reports.diff_figures import latents_figure, series_figure, shift_figure, transfer_figure
from probe.reports.diff_page import diff_table, write_diff_report
from probe.reports.figures import arms_figure, gap_figure
from probe.reports.inside_figures import (
    anchors_figure,
    direct_figure,
    forced_figure,
    lens_figure,
    patch_figure,
    token_trace_figure,
)
from probe.reports.page import write_report
from probe.reports.table import arms_table, own_table
from probe.reports.trace_view import trace_view
from probe.reports.verification import study_table, verification_table

__all__ = [
    "adapter_card",
    "anchors_figure",
    "arms_figure",
    "arms_table",
    "attention_patterns",
    "bits_figure",
    "cards_figure",
    "circuit_figure",
    "circuit_table",
    "colored_tokens",
    "comparison_figure",
    "comparison_table",
    "diff_table",
    "differences_table",
    "direct_figure",
    "discovery_table",
    "faithfulness_figure",
    "forced_figure",
    "gap_figure",
    "grid_figure",
    "heads_figure",
    "latents_figure",
    "lens_figure",
    "map_figure",
    "own_table",
    "patch_figure",
    "receivers_figure",
    "sentence_figure",
    "series_figure",
    "shift_figure",
    "study_figure",
    "study_table",
    "timeline_figure",
    "token_trace_figure",
    "trace_view",
    "transfer_figure",
    "transition_figure",
    "tuning_figure",
    "usage_figure",
    "verification_figure",
    "verification_table",
    "write_adapter_report",
    "write_attention",
    "write_circuit_report",
    "write_comparison",
    "write_diff_report",
    "write_discovery_report",
    "write_report",
    "write_study",
]
