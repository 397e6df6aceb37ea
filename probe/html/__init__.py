"""HTML for all rooms: colours of behaviours, tables, the reader of traces, the trace map, drawings of circuits."""

from probe.html.assets import asset as asset
from probe.html.circuit_map import CircuitEdge as CircuitEdge, circuit_html as circuit_html
from probe.html.marks import (
    COLOURS as COLOURS,
    behaviour_colour as behaviour_colour,
    html_table as html_table,
)
from probe.html.reader import (
    LIMIT as LIMIT,
    SHOWN as SHOWN,
    Reading as Reading,
    fair_share as fair_share,
    reader_html as reader_html,
    reader_script as reader_script,
    reader_style as reader_style,
)
from probe.html.trace_map import MapSource as MapSource, trace_map_html as trace_map_html
