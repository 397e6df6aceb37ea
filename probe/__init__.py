"""What did training add to a base model: the reasoning mechanisms themselves, or only when to use them?

The names below are the toolkit's public face. Each is imported from its room when it is first used, so that
``import probe`` is quick and brings in no library that the work at hand does not need.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

#: Public name -> the room it comes from.
_PUBLIC = {
    "ProbeError": "probe._errors",
    "Model": "probe.models",
    "ModelConfig": "probe.models",
    "Pair": "probe.models",
    "PairConfig": "probe.models",
    "Site": "probe.models",
    "list_pairs": "probe.models",
    "load_model": "probe.models",
    "load_pair": "probe.models",
    "nnsight_value": "probe.models",
    "site_table": "probe.models",
    "load_problems": "probe.problems",
    "capture": "probe.hooks",
    "edit": "probe.hooks",
    "Tokens": "probe.hooks",
    "Add": "probe.hooks",
    "Clamp": "probe.hooks",
    "ProjectOut": "probe.hooks",
    "Scale": "probe.hooks",
    "Swap": "probe.hooks",
    "generate_traces": "probe.traces",
    "harvest": "probe.activations",
    "ActivationStore": "probe.activations",
    "Document": "probe.activations",
    "documents_of": "probe.activations",
    "fit_taxonomy": "probe.taxonomy",
    "explore": "probe.taxonomy",
    "from_grid": "probe.taxonomy",
    "Taxonomy": "probe.taxonomy",
    "TaxonomyConfig": "probe.taxonomy",
    "annotate": "probe.taxonomy",
    "falsify": "probe.taxonomy",
    "count_behaviours": "probe.taxonomy",
    "write_neuronpedia": "probe.taxonomy",
    "collect_gates": "probe.steering",
    "learn_reader": "probe.steering",
    "learn_vectors": "probe.steering",
    "hybrid_arm": "probe.hybrid",
    "oracle_free_arm": "probe.hybrid",
    "control_arms": "probe.hybrid",
    "decode_hybrid": "probe.hybrid",
    "evaluate_arm": "probe.hybrid",
    "gap_recovered": "probe.hybrid",
    "compare": "probe.diff",
    "thought_anchors": "probe.anchors",
    "RunConfig": "probe.pipeline",
    "run": "probe.pipeline",
    "DiscoverConfig": "probe.pipeline",
    "discover": "probe.pipeline",
    "compare_runs": "probe.pipeline",
    "write_report": "probe.reports",
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'probe' has no attribute {name!r}")
    return globals().setdefault(name, getattr(import_module(_PUBLIC[name]), name))


def __dir__() -> list[str]:
    return sorted(globals().keys() | _PUBLIC.keys())
