"""Texts that have nothing to do with a problem set, and their token ids."""

from collections.abc import Sequence

from probe.models import Model
from probe.problems import Problem

_KNOWN = 0.9
"""The smallest share of tokens that a tokenizer must know of the bundled sentences."""
_MOST = 128
"""The most questions that replace the bundled sentences."""

SENTENCES = (
    "The harbour was quiet before the ferry arrived.",
    "Rain fell on the tin roof all night.",
    "She planted tomatoes along the southern wall.",
    "Most birds of this region leave in October.",
    "The museum closes at five on weekdays.",
    "His grandmother kept bees behind the chapel.",
    "Copper turns green when it is left outside.",
    "A thin layer of ice covered the pond.",
    "The orchestra tuned for the second half.",
    "Nobody had locked the door of the greenhouse.",
    "Bread rises faster in a warm kitchen.",
    "The train to the coast was late again.",
    "Old maps often show islands that never existed.",
    "They painted the fence a pale shade of blue.",
    "Whales sing across hundreds of miles of water.",
    "The mayor opened the new library yesterday.",
    "Leather gloves protect the hands of a gardener.",
    "Snow had blocked the pass since November.",
    "Our neighbour repairs clocks and music boxes.",
    "The soup needs a little more salt.",
    "Glass is made from sand, soda and lime.",
    "A fox crossed the lane in front of us.",
    "The novel begins with a letter from Lisbon.",
    "Cedar keeps moths away from woollen clothes.",
    "Students gathered on the steps of the theatre.",
    "The river changes its course every few decades.",
    "He wore the same grey coat each winter.",
    "Saffron comes from the flower of a crocus.",
    "The tower can be seen from the motorway.",
    "My sister teaches history in a small town.",
    "Volcanic soil is good for growing grapes.",
    "The dog slept beneath the kitchen table.",
    "Fishermen mend their nets on the quay.",
    "The committee will publish its report in spring.",
    "Moonlight fell through the broken shutters.",
    "Cotton was the main export of the province.",
    "An owl nested in the ruins of the mill.",
    "The recipe calls for butter and brown sugar.",
    "Visitors leave their shoes at the entrance.",
    "The film was shot in black and white.",
    "Lightning struck the oak beside the church.",
    "Her first album sold poorly in Europe.",
    "The desert cools quickly after sunset.",
    "Carpenters prefer oak for heavy beams.",
    "A violin lay on the chair by the window.",
    "The council banned cars from the old town.",
    "Tea reached this country by caravan.",
    "The glacier has shrunk since the last survey.",
)
"""Sentences on everyday topics, none of which reasons or counts."""


def unrelated_texts(
    model: Model, problems: Sequence[Problem], given: Sequence[str] | None = None
) -> tuple[str, list[list[int]]]:
    """The token ids of texts on other topics.

    Args:
        problems: their questions, without a prompt, are used if the tokenizer does not know the bundled sentences.
        given: texts to use instead.

    Returns:
        Where the texts come from, and the ids of each.
    """
    if given is not None:
        return "given texts", [model.encode(text) for text in given]
    found = [model.encode(text) for text in SENTENCES]
    unknown = model.tokenizer.unk_token_id
    ids = [token for text in found for token in text]
    if unknown is None or sum(token == unknown for token in ids) <= (1 - _KNOWN) * len(ids):
        return "bundled sentences", found
    return "questions of the problems", [model.encode(problem.question) for problem in problems[:_MOST]]
