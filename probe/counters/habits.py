"""The four cognitive habits in any text, by rules on single sentences.

The habits are those of Gandhi et al. 2025 (arXiv 2503.01307), who counted them with a language model. Here a habit
counts once for each sentence that shows it, and a sentence may show several. The rules are heuristics for English: they
match words, not what is computed. On 48 varied sentences that were written and labelled after the rules, precision was
0.94 and recall 0.88; the same person wrote the rules, so expect less elsewhere. Countdown and the bundled story
problems have exact counters.
"""

from probe.counters.wording import Wording

VERIFICATION, BACKTRACKING, SUBGOAL_SETTING, BACKWARD_CHAINING = HABITS = (
    "verification",
    "backtracking",
    "subgoal setting",
    "backward chaining",
)

_ANOTHER_WAY = (
    r"\b(try|take|consider|use|need|think of) (\w+ ){0,2}(different|another|alternative|other) (\w+ )?"
    r"(approach|way|method|route|idea|strategy|path|angle|combination|order|tack)"
)
_FROM_THE_END = (
    r"\bto (reach|get to|arrive at|end (up )?(at|with)|obtain|make|hit) (\w+ ){0,4}?[\w$]+,? "
    r"(i|we|you|the (last|final) \w+|it) (would |will |must )?(need|have|has|be|require)"
)

_RULES = {
    VERIFICATION: Wording(
        r"\b(double|re|cross|sanity)[-\s]?check",
        r"\b(let('s| me| us)|to|i('ll| will| should| can)|we can) (just |quickly )?(check|verify|confirm|validate)\b",
        r"\b(let('s| me| us)|to|i('ll| will| should| can)|we can) (just |quickly )?test (this|that|whether|if)\b",
        r"^\W*(check(ing)?|verify(ing)?|verification|confirming)\b",
        r"\bmake sure\b(?! (that )?i (understand|get|read))",
        r"\bsatisf(y|ies) (the|all|both|every)\b",
        r"\b(is|was|are) (that|this|it) (right|correct|true)\b",
        r"\b(plug|substitut|put)\w*\b.{0,80}\b(back|into the (\w+ )?(equation|condition|problem)s?)\b",
        r"\bre-?(compute|calculate|calculating|computing|count)\b",
        r"\b(this|that|it|all|everything) (\w+ )?checks out\b",
        r"\b(which|that|this|it) (indeed )?(matches|checks out|agrees with|satisfies|is consistent)\b",
        r"\b(does(n't| not)?|do(n't| not)?) (this|that|it|they|these)?\s*(match|satisf|agree|add up|work out)",
        r"\btoo (high|low|big|small|large|much|many)\b",
        r"\bthis works\b",
        r"\bnot equal to\b",
    ),
    BACKTRACKING: Wording(
        r"^\W*((oh|no|hmm|but|ah|okay|ok|well)\b\W*)*(wait|hold on|scratch that|never\s?mind)\b",
        r"^\W*((oh|hmm|but|ah|okay|ok|well)\b\W*)*(actually, (no|that|this|i)|no, (that|this|it|i|we))\b",
        r"\b(let('s| me| us)|i('ll| will| should)|we (should|could)) (\w+ ){0,2}(go back|start (over|again|afresh))",
        r"\b(let('s| me| us)|i('ll| will| should)|we (should|could)) (\w+ ){0,2}(backtrack|redo|re-?(think|examine))",
        r"\b(let('s| me| us)|i('ll| will| should)|we (should|could)) (\w+ ){0,2}(reconsider|switch|return to|undo)",
        _ANOTHER_WAY,
        r"\binstead of (that|this|\w+ing)",
        r"\b(i|we) (made|must have made) (a|an|some) (\w+ )?(mistake|error|slip)",
        r"\b(that|this|which|it) (approach |way |path )?(does|did|wo|is)(n't| not) (work|help|lead|going to work)",
        r"\b(that|this|which|it) (is|was)(n't| not) (right|correct)",
        r"\b(i|we) (forgot|misread|miscounted|overlooked|missed|miscalculated|confused)\b",
        r"\bcontradict(s|ion|ing)\b",
        r"\blead(s|ing)? (me |us )?nowhere\b",
        r"\b(that|this)('s| is| was| must be) (wrong|a dead end|incorrect|a mistake)",
        r"\b(that|this|it) can'?t be (right|correct)",
        r"\bdead end\b",
        r"\bon second thought\b",
        r"\bstart(ing)? over\b",
        r"^\W*(again,|redo\b|back to\b|alternatively\b)",
    ),
    SUBGOAL_SETTING: Wording(
        r"\bfirst(ly)?,? (i|we|let|find|compute|calculate|determine|the thing|step|of all,? (i|we|let)|try)",
        r"^\W*(next|then|now|second(ly)?|finally|after that),? (i|we)('ll| will| need| have to| can| should| want)",
        r"^\W*(next|then|after that|finally),? let",
        r"\bbreak(ing)? (\w+ ){1,3}(down|up|into)\b",
        r"\bsplit(ting)? (\w+ ){1,3}into (\w+ )?(parts|cases|steps|pieces)",
        r"\bstep by step\b",
        r"^\W*step \d",
        r"\b(sub-?goal|sub-?problem|intermediate (goal|step|target|result))s?\b",
        r"\b(the|my|our) (plan|strategy|approach|first step|next step|goal (for )?now) (is|will|here)",
        r"\b(i|we)('ll| will| can| could| should) (start|begin) (by|with)\b",
        r"\bone (by one|at a time)\b",
        r"\b(cases|parts) separately\b",
        r"\b(let('s| me| us)|(i|we)('ll| will| should| can)) \w+.{0,80}\bfirst\W*$",
        r"\bto (solve|do|answer|find|get|prove) ([\w,]+ ){1,6}?(i|we)('ll| (must|need|first|have to|should|will))\b",
        r"\bbefore (i|we) can\b",
        r"\b(try|want|need|aim)(ing)? to get (close|near)",
    ),
    BACKWARD_CHAINING: Wording(
        r"\b(work(ing)?|reason(ing)?|go(ing)?|think(ing)?|trace|tracing) (it )?(back|backwards?) from\b",
        r"\bwork(ing)? (\w+ )?(backwards?|in reverse)\b",
        _FROM_THE_END,
        r"\b(i|we) (want|need|have) to (finish|end( up)?|arrive) (with|at|on)\b",
        r"\bbefore the (last|final) (step|move|operation)\b",
        r"\b(start(ing)?|begin(ning)?) (from|with|at) the (answer|target|goal|end|result|conclusion|desired|final)",
        r"\bwhat (would|do|must|should) (i|we|it) (\w+ )?(need|have to)\b.{0,80}\b(to|in order|so that|for)\b",
        r"\b(since|because|as|if) the (target|goal|answer|desired result) (is|must be|should be|has to be)\b",
        r"\bfor (that|this|the \w+) to (be|hold|happen|work|equal)\b.{0,80}\b(must|need|has to|have to|would)\b",
    ),
}


def habits_of(sentence: str) -> frozenset[str]:
    """Find the habits that a sentence shows, by its words.

    >>> sorted(habits_of(" Wait, let me double-check that."))
    ['backtracking', 'verification']
    """
    return frozenset(habit for habit, rule in _RULES.items() if rule.fits(sentence))
