"""The check that two tokenizers give the same ids for the same text, as the models of a pair exchange token ids."""

from transformers import PreTrainedTokenizerFast

from probe.errors import ProbeError

_PROBES = (
    "So 12 + 7 = 19. Wait, let me check: 19 - 7 = 12.",
    "Line one.\n\nLine two.\n\tIndented;  two spaces ",
    "1234567890 3.14 1,000 50% $5",
    "café naïve 你好 Ω ≤ → 🙂",
    "\\boxed{\\frac{1}{2}} if x != y: return f(x)",
)


def check_tokenizers(base: PreTrainedTokenizerFast, thinking: PreTrainedTokenizerFast) -> tuple[str, ...]:
    """Refuse two tokenizers that give different ids for the same text.

    The pieces of ordinary text must have the same ids on both sides, and some unusual strings must be split alike.
    Added tokens may differ, because training often renames reserved ids (``<think>``, end of turn). The padding of the
    embedding matrix is not compared.

    Returns:
        The added tokens that only one side has, or that have different ids, sorted.

    Raises:
        ProbeError: if the tokenizers differ; the message names the first difference.
    """
    of_base, of_thinking = base.get_vocab(), thinking.get_vocab()
    added = set(base.get_added_vocab()) | set(thinking.get_added_vocab())
    differing = {piece for piece in of_base.keys() | of_thinking.keys() if of_base.get(piece) != of_thinking.get(piece)}
    ordinary = differing - added
    if ordinary:
        piece = min(ordinary, key=lambda p: (min(of_base.get(p, 1 << 60), of_thinking.get(p, 1 << 60)), p))
        raise ProbeError(
            f"the tokenizers of the pair differ in {len(ordinary)} pieces: {piece!r} is {_as_id(of_base.get(piece))} "
            f"in the base model and {_as_id(of_thinking.get(piece))} in the thinking model; a pair must share its "
            "tokenizer"
        )
    for text in _PROBES:
        ours = base(text, add_special_tokens=False).input_ids
        theirs = thinking(text, add_special_tokens=False).input_ids
        if ours != theirs:
            raise ProbeError(
                f"the tokenizers of the pair split the same text differently: {text!r} is {len(ours)} tokens in the "
                f"base model and {len(theirs)} in the thinking model; a pair must share its tokenizer"
            )
    return tuple(sorted(differing))


def _as_id(number: int | None) -> str:
    return "missing" if number is None else f"id {number}"
