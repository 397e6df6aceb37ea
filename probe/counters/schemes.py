"""Two published schemes of sentence labels, by ordered rules: the first rule that matches a sentence labels it.

``six`` has the labels of Venhoff et al. 2025 (arXiv 2506.18167), ``eight`` those of Bogdan et al. 2025, *Thought
Anchors* (arXiv 2506.19143). In those papers a language model assigned the labels. The rules here are heuristics for
English that look at one sentence alone; a sentence that no rule matches has no label. On 48 varied sentences that were
written and labelled after the rules, precision was 0.80 and recall 0.74 for ``six``, 0.95 and 0.77 for ``eight``; the
same person wrote the rules, so expect less elsewhere.
"""

from collections.abc import Sequence

from probe.config import nearest
from probe.counters.wording import Wording
from probe.errors import ProbeError

SIX = (
    "initializing",
    "deduction",
    "adding-knowledge",
    "example-testing",
    "uncertainty-estimation",
    "backtracking",
)
EIGHT = (
    "problem_setup",
    "plan_generation",
    "fact_retrieval",
    "active_computation",
    "uncertainty_management",
    "result_consolidation",
    "self_checking",
    "final_answer_emission",
)

_SETUP = Wording(
    r"^\W*((okay|ok|alright|all right|so|now|hmm|well)\b\W*)*(i|we)('m|'re| am| are|'ve| have)? (\w+ )?"
    r"(need|have|want|given|asked|told|got|trying) "
    r"(to (find|figure|determine|solve|work out|compute|calculate|prove|show|tackle|answer|count)"
    r"|that|an?\b|this|the|two|three)",
    r"\b(the|this) (problem|question|task|exercise|puzzle) (is|says|asks|states|gives|wants|tells|involves)\b",
    r"\b(problem|question|task) (statement|about|where|asking|here)\b",
    r"\b(i|we)('m|'re| am| are| were) (being )?(asked|given|told|looking for)\b",
    r"\blet'?( me| us|s) (\w+ ){0,3}(restate|rephrase|parse|understand|read|recap the (problem|question))\b",
    r"^\W*given( that)?\b",
    r"\bin other words, (i|we|the (problem|question))",
    r"\band (i|we) (need|have) to (find|determine|compute|count|figure)\b",
    r"\bhere'?( is|s) what (i|we) know\b",
    r"\bwhat is being asked\b",
)
_CHECK = Wording(
    r"\b(double|re|cross|sanity)[-\s]?check",
    r"\bcheck(ing)?\b(?!\s+(mark|book|box|in\b|out\b))",
    r"\bverif(y|ies|ied|ying|ication)\b",
    r"\bconfirm(s|ed|ing)?\b",
    r"\bmake sure\b(?! (that )?i (understand|get|read))",
    r"\bre-?(compute|calculate|calculating|computing|count)\b",
    r"\bchecks out\b",
    r"\bsatisf(y|ies) (the|all|both|every)\b",
    r"\b(plugg?|substitut)\w*\b.{0,80}\b(back|into the (\w+ )?(equation|condition|problem)s?)\b",
    r"\b(is|was) (that|this|it) (right|correct)\b",
    r"\b(which|that|this|it) (indeed )?(matches|agrees|checks)",
)
_BACK = Wording(
    r"\b(that|this|which|it)('s| is| was| must be) (\w+ )?(wrong|incorrect|a mistake|a dead end)",
    r"\b(that|this|which|it) (is(n't| not)|was(n't| not)|can'?t be) (\w+ )?(right|correct|possible)\b",
    r"\b(does(n't| not)|did(n't| not)|won't|can'?t) (seem )?(\w+ )?(work|make sense|help|match|hold|be right)\b",
    r"\bcontradict(s|ion|ing)\b",
    r"\blead(s|ing)? (me |us )?nowhere\b",
    r"^\W*((oh|but)\W+)?no,",
    r"\b(i|we)('ve| have| must have)? (\w+ )?made (a|an|some) (\w+ )?(mistake|error|slip)",
    r"\b(i|we)('ve| have| must have)? (\w+ )?(went wrong|misread|miscounted|forgot|overlooked|missed (a|the|that)\b)",
    r"\b(go|going|step) back\b",
    r"\bstart(ing)? (over|again|afresh)\b",
    r"\bscratch that\b",
    r"\bnever\s?mind\b",
    r"\bon second thought\b",
    r"\bdead end\b",
    r"\b(rethink|reconsider|backtrack|redo)\b",
    r"^\W*(again,|redo\b)",
    r"\b(different|another|alternative) (\w+ )?(approach|way|method|route|idea|strategy|path|angle|combination)\b",
    r"^\W*alternatively\b",
    r"\binstead\b",
)
_WAIT = Wording(r"^\W*((oh|no|hmm+|but|ah|okay|so)\b\W*)*(wait|hold on|actually)\b")
_UNSURE = Wording(
    r"\b(hmm+|maybe|perhaps|probably|possibly|might|confus(ed|ing)|confident|tricky|unclear)\b",
    r"\b(not|un)\s?(entirely |completely |quite |so |too |100 ?% )?(sure|certain|clear)\b",
    r"\bi (think|guess|believe|suppose|wonder|doubt)\b",
    r"\b(may|could) (\w+ )?be\b",
    r"\b(seem|seems|appears|looks) (to|like|right|wrong|off|plausible|reasonable|odd|strange|too)",
)
_RECALL = Wording(
    r"\b(i|we) (\w+ )?(know|learned)\b(?! (the|that) (answer|total))",
    r"\b(remember|recall)(ing)?\b",
    r"\b(formula|theorem|lemma|identity|definition|axiom|law|rule|inequality|principle|property|constant)\b",
    r"\b(is|are) (\w+ )?(defined|known|called)\b",
    r"\b(in general|generally|typically|usually|well[- ]known)\b",
    r"\b(states|says) that\b",
    r"^\W*(a|an|any|every|each|all) (\w+ ){1,3}(has|have|is|are|can|must)\b",
    r"\bthere are \w+ (\w+ )?in (a|an|one|each)\b",
)
_EQUATION = Wording(
    r"\d\s*[-+*/×·÷^−]\s*\(?\s*\d",
    r"[\d)\]}]\s*=",
    r"\\(frac|times|cdot|sqrt|div)\b",
    r"\b((i|we) (get|have|obtain)|gives|equals|makes|leaves|is|are) \$?-?\d",
    r"^\W*(adding|subtracting|multiplying|dividing|squaring|simplifying|expanding|factoring|half of)\b",
)
_ANSWER = Wording(
    r"\\boxed",
    r"\bfinal (answer|result)\b",
    r"</?answer>",
    r"^\W*answer\b\W",
    r"</think>",
    r"\b(the|my|our) (correct )?(answer|solution|result) (is|must be|should be|would be|comes (out )?to)\b",
    r"\b(is|as) (the|my|our) (final )?answer\b",
)
_TRY = Wording(
    r"\bfor (example|instance)\b",
    r"\be\.g\.",
    r"\b(suppose|imagine|say)\b(?! that again)",
    r"\btest(ing)?\b",
    r"\b(let's|let me|let us|i'll|i can|we can|i could) (just |also )?(try|test|plug|take|pick)\b",
    r"\b(try|trying|tried|plug(ging)? in|take|pick|consider) (\w+ ){0,2}(\w+ ?= ?-?\d|small (case|number|value)s?|\d)",
    r"^\W*(if|when|for) (\w+|\$\w+\$) ?(=|is|equals|were) ?-?\$?\d",
)
_SO = Wording(
    r"\b(so|therefore|thus|hence|since|because|implies|means|then|consequently|follows|must|putting|altogether)\b",
    r"\b(all in all|(is|are) left|(which|that) gives)\b",
)
_PLAN = Wording(
    r"\b(let's|let me|let us|(i|we)('ll| will| should| can| could)|i'm going to)\b",
    r"\b(first|next|then|now|second),? (i|we)\b",
    r"\b(plan|strategy|approach|way to|next step|first step|idea)\b",
    r"\b(i|we) (need|have|want|ought) to\b",
    r"\bstep by step\b",
    r"^\W*step \d",
    r"\b(suppose|imagine)\b",
    r"\bto (solve|find|do) (this|that|it|the)\b",
)
_SUM_UP = Wording(
    r"^\W*(all in all|in (summary|short|total|all)|overall|to (sum up|summari[sz]e|recap)|combining|this gives)\b",
    r"\b(so far|in total|we (now )?have|it follows)\b",
)

_RULES = {
    "six": (
        ("initializing", _SETUP),
        ("uncertainty-estimation", _CHECK),
        ("backtracking", _BACK),
        ("uncertainty-estimation", _UNSURE),
        ("backtracking", _WAIT),
        ("adding-knowledge", _RECALL),
        ("example-testing", _TRY),
        ("deduction", _SO | _EQUATION),
    ),
    "eight": (
        ("final_answer_emission", _ANSWER),
        ("self_checking", _CHECK),
        ("uncertainty_management", _WAIT | _BACK | _UNSURE),
        ("problem_setup", _SETUP),
        ("fact_retrieval", _RECALL),
        ("active_computation", _EQUATION),
        ("plan_generation", _PLAN),
        ("result_consolidation", _SUM_UP | _SO),
    ),
}


def label_sentences(texts: Sequence[str], scheme: str) -> list[str | None]:
    """Label each sentence by a published scheme.

    Args:
        texts: sentences.
        scheme: ``six`` or ``eight``.

    Returns:
        A label for each sentence; None for one that no rule matches.

    Raises:
        ProbeError: if there is no such scheme.

    >>> label_sentences(["Okay, so I need to find the area.", "So 3 * 4 = 12."], "eight")
    ['problem_setup', 'active_computation']
    """
    if scheme not in _RULES:
        raise ProbeError(f"unknown scheme of sentence labels {scheme!r}; {nearest(scheme, _RULES)}")
    return [next((label for label, rule in _RULES[scheme] if rule.fits(text)), None) for text in texts]
