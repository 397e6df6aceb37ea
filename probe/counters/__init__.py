"""Counters: how often a model verifies, backtracks, plans and so on, by rules, from text alone."""

from probe.counters.count import (
    SCHEMES as SCHEMES,
    Scheme as Scheme,
    count_behaviours as count_behaviours,
    count_habits as count_habits,
    usual_sentences as usual_sentences,
)
from probe.counters.countdown import count_countdown as count_countdown
from probe.counters.countdown_words import countdown_problem as countdown_problem
from probe.counters.equations import read_sum as read_sum
from probe.counters.habits import HABITS as HABITS, habits_of as habits_of
from probe.counters.schemes import EIGHT as EIGHT, SIX as SIX, label_sentences as label_sentences
from probe.counters.story import count_story as count_story, mark_story as mark_story
from probe.counters.table import (
    BehaviourCounts as BehaviourCounts,
    Comparison as Comparison,
    compare_counts as compare_counts,
)
