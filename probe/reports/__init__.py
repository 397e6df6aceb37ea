"""Reports of what a run found: a self-contained page, figures for Jupyter, and a table for the terminal.

Everything here reads the run folder's files (``results.json`` is the contract) and computes nothing of its own.
"""

from probe.reports.adapter.figures import (
    study_figure as study_figure,
    tuning_figure as tuning_figure,
    verification_figure as verification_figure,
)
from probe.reports.adapter.files import read_adapter as read_adapter
from probe.reports.adapter.page import (
    adapter_card as adapter_card,
    write_adapter_report as write_adapter_report,
    write_study as write_study,
)
from probe.reports.adapter.tables import study_table as study_table, verification_table as verification_table
from probe.reports.anchors.figures import (
    anchors_figure as anchors_figure,
    forced_figure as forced_figure,
    sentences_figure as sentences_figure,
)
from probe.reports.anchors.page import (
    anchors_table as anchors_table,
    unfinished_rollouts as unfinished_rollouts,
    write_anchors_report as write_anchors_report,
)
from probe.reports.circuits.attention_view import (
    attention_patterns as attention_patterns,
    colored_tokens as colored_tokens,
    receivers_figure as receivers_figure,
    sentence_figure as sentence_figure,
    trace_map as trace_map,
    write_attention as write_attention,
    write_trace_map as write_trace_map,
)
from probe.reports.circuits.features_figures import (
    features_figure as features_figure,
    latent_difference_figure as latent_difference_figure,
    shares_figure as shares_figure,
)
from probe.reports.circuits.figures import (
    circuit_view as circuit_view,
    faithfulness_figure as faithfulness_figure,
    heads_figure as heads_figure,
)
from probe.reports.circuits.head_gallery import head_gallery as head_gallery
from probe.reports.circuits.inside_figures import (
    direct_figure as direct_figure,
    entry_figure as entry_figure,
    foresight_figure as foresight_figure,
    lens_figure as lens_figure,
    patch_figure as patch_figure,
    token_trace_figure as token_trace_figure,
)
from probe.reports.circuits.page import circuit_table as circuit_table, write_circuit_report as write_circuit_report
from probe.reports.diff.figures import (
    difference_figure as difference_figure,
    latents_figure as latents_figure,
    series_figure as series_figure,
    shift_figure as shift_figure,
    transfer_figure as transfer_figure,
)
from probe.reports.diff.page import diff_table as diff_table, write_diff_report as write_diff_report
from probe.reports.discovery.cards_figure import cards_figure as cards_figure
from probe.reports.discovery.figures import (
    map_figure as map_figure,
    timeline_figure as timeline_figure,
    transition_figure as transition_figure,
    usage_figure as usage_figure,
)
from probe.reports.discovery.grid_figure import grid_figure as grid_figure
from probe.reports.discovery.page import (
    discovery_table as discovery_table,
    write_discovery_report as write_discovery_report,
)
from probe.reports.html.terminal import listing as listing, terminal_table as terminal_table
from probe.reports.run.bits_figure import bits_figure as bits_figure, passes_figure as passes_figure
from probe.reports.run.columns import to_columns as to_columns
from probe.reports.run.compare import (
    comparison_figure as comparison_figure,
    comparison_table as comparison_table,
    differences_table as differences_table,
    write_comparison as write_comparison,
)
from probe.reports.run.demo import (
    DEMO_INTRODUCTION as DEMO_INTRODUCTION,
    demo_findings as demo_findings,
    demo_next as demo_next,
)
from probe.reports.run.figures import arms_figure as arms_figure, gap_figure as gap_figure
from probe.reports.run.files import (
    read_behaviours as read_behaviours,
    read_graded as read_graded,
    read_results as read_results,
)
from probe.reports.run.live import LiveTokens as LiveTokens
from probe.reports.run.look import look_tables as look_tables
from probe.reports.run.page import write_report as write_report
from probe.reports.run.picture import trace_picture as trace_picture
from probe.reports.run.table import (
    arm_rows as arm_rows,
    arms_table as arms_table,
    curve_table as curve_table,
    own_table as own_table,
)
from probe.reports.run.trace_view import trace_view as trace_view
