# The public names of `probe`, read by editors and, at run time, by `probe/__init__.py`.
from . import (
    activations as activations,
    adapters as adapters,
    anchors as anchors,
    circuits as circuits,
    counters as counters,
    diff as diff,
    hooks as hooks,
    hybrid as hybrid,
    models as models,
    pipeline as pipeline,
    problems as problems,
    reports as reports,
    servers as servers,
    statistics as statistics,
    steering as steering,
    taxonomy as taxonomy,
    traces as traces,
)
from .activations import (
    ActivationStore as ActivationStore,
    Document as Document,
    SentenceActivations as SentenceActivations,
    documents_of as documents_of,
    harvest as harvest,
)
from .adapters import (
    AdapterPlan as AdapterPlan,
    Objective as Objective,
    TuneConfig as TuneConfig,
    attached as attached,
    examples_of as examples_of,
    gguf_lora as gguf_lora,
    inserted as inserted,
    load_sae as load_sae,
    merged as merged,
    train_sae as train_sae,
    tune as tune,
    verify as verify,
)
from .anchors import (
    critical_tokens as critical_tokens,
    forced_answers as forced_answers,
    pivotal_tokens as pivotal_tokens,
    read_rollouts as read_rollouts,
    resilience as resilience,
    thought_anchors as thought_anchors,
)
from .circuits import (
    Circuit as Circuit,
    EdgeLens as EdgeLens,
    Pairs as Pairs,
    attention as attention,
    attribute as attribute,
    behaviour_pairs as behaviour_pairs,
    direct_attribution as direct_attribution,
    effect_of_heads as effect_of_heads,
    faithfulness as faithfulness,
    heads_changed as heads_changed,
    logit_lens as logit_lens,
    patch as patch,
    path_effect as path_effect,
    read_pairs as read_pairs,
    receiver_heads as receiver_heads,
)
from .counters import (
    BehaviourCounts as BehaviourCounts,
    compare_counts as compare_counts,
    count_behaviours as count_behaviours,
)
from .diff import (
    diff_models as diff_models,
    head_shift as head_shift,
    shared_latents as shared_latents,
    token_trace as token_trace,
)
from .errors import ProbeError as ProbeError
from .hooks import (
    Add as Add,
    Apply as Apply,
    Captured as Captured,
    Clamp as Clamp,
    ProjectOut as ProjectOut,
    Scale as Scale,
    Swap as Swap,
    Tokens as Tokens,
    capture as capture,
    edit as edit,
)
from .hybrid import (
    Arm as Arm,
    ArmResult as ArmResult,
    control_arms as control_arms,
    decode_hybrid as decode_hybrid,
    evaluate_arm as evaluate_arm,
    gap_recovered as gap_recovered,
    hybrid_arm as hybrid_arm,
    oracle_free_arm as oracle_free_arm,
)
from .models import (
    Model as Model,
    ModelConfig as ModelConfig,
    Pair as Pair,
    PairConfig as PairConfig,
    Site as Site,
    list_pairs as list_pairs,
    load_model as load_model,
    load_pair as load_pair,
    nnsight_value as nnsight_value,
    site_table as site_table,
)
from .pipeline import (
    AdapterConfig as AdapterConfig,
    Checks as Checks,
    CircuitConfig as CircuitConfig,
    DiffConfig as DiffConfig,
    DiscoverConfig as DiscoverConfig,
    Plan as Plan,
    Run as Run,
    RunConfig as RunConfig,
    compare_runs as compare_runs,
    discover as discover,
    doctor as doctor,
    find_circuit as find_circuit,
    open_run as open_run,
    plan as plan,
    run as run,
    run_checks as run_checks,
    study as study,
    tune_adapter as tune_adapter,
)
from .problems import Problem as Problem, ProblemSet as ProblemSet, load_problems as load_problems
from .reports import write_report as write_report
from .servers import ServersConfig as ServersConfig
from .steering import (
    SteeringConfig as SteeringConfig,
    collect_gates as collect_gates,
    learn_mechanism as learn_mechanism,
    learn_policy as learn_policy,
    learn_reader as learn_reader,
    learn_vectors as learn_vectors,
    load_mechanism as load_mechanism,
    policy_data as policy_data,
)
from .taxonomy import (
    Behaviour as Behaviour,
    FalsifyConfig as FalsifyConfig,
    Taxonomy as Taxonomy,
    TaxonomyConfig as TaxonomyConfig,
    annotate as annotate,
    behaviour_map as behaviour_map,
    explore as explore,
    falsify as falsify,
    find_behaviour as find_behaviour,
    fit_taxonomy as fit_taxonomy,
    from_grid as from_grid,
    show_behaviours as show_behaviours,
    write_neuronpedia as write_neuronpedia,
)
from .traces import (
    ImportedTraces as ImportedTraces,
    Trace as Trace,
    Traces as Traces,
    generate_traces as generate_traces,
    import_traces as import_traces,
    open_servers as open_servers,
    served_traces as served_traces,
    split_sentences as split_sentences,
)

__version__: str
