"""Problem sets and graders: questions with checkable answers, and the decision whether an answer is right."""

from probe.problems.answers import extract_answer as extract_answer, known_answer as known_answer
from probe.problems.grading import GRADERS as GRADERS, Grade as Grade
from probe.problems.loading import (
    check_problems as check_problems,
    is_generated as is_generated,
    load_problems as load_problems,
)
from probe.problems.local import read_records as read_records, set_of_records as set_of_records
from probe.problems.mix import Mix as Mix, is_mix as is_mix
from probe.problems.problem_set import (
    SPLITS as SPLITS,
    Problem as Problem,
    ProblemSet as ProblemSet,
    split_of as split_of,
)
from probe.problems.story.reading import read_change as read_change, read_story as read_story
from probe.problems.story.sentences import (
    CHAT as CHAT,
    CHECK as CHECK,
    CLOSE as CLOSE,
    COMPUTE as COMPUTE,
    CONCLUDE as CONCLUDE,
    PLAN as PLAN,
    REDO as REDO,
    RESTATE as RESTATE,
    TYPES as TYPES,
    Work as Work,
    parse as parse,
    write as write,
)
from probe.problems.story.story import ORDINALS as ORDINALS, Change as Change, Story as Story, draw_story as draw_story
from probe.problems.story.wordings import reword as reword
from probe.problems.taking import Taken as Taken, take_problems as take_problems, with_splits as with_splits
