"""Where in its sentence each row is, told token by token as the text is emitted."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

_CLOSING = "\"'”’)]}*_ "


def sentence_enders(tokenizer: PreTrainedTokenizerFast, vocab: int) -> Bool[Tensor, " vocab"]:
    """Which tokens end a sentence: those whose text ends in a full stop, a question or exclamation mark, or a line.

    While a text is being written nobody knows what comes next, so a decimal point counts as well.
    """
    known = min(vocab, len(tokenizer))
    texts = tokenizer.batch_decode([[token] for token in range(known)], clean_up_tokenization_spaces=False)
    ends = [text.rstrip(_CLOSING).endswith((".", "!", "?")) or "\n" in text for text in texts]
    return torch.tensor(ends + [False] * (vocab - known))


class SentenceState:
    """How many tokens of its sentence each item has, and the mean of what a model's residual stream was over them.

    Args:
        enders: from :func:`sentence_enders`, on the device.
        items: how many there are.
    """

    def __init__(self, enders: Bool[Tensor, " vocab"], items: int) -> None:
        self.enders = enders
        self.length = torch.zeros(items, dtype=torch.long, device=enders.device)
        self.sums: dict[int, Tensor] = {}

    def advance(
        self,
        items: Int[Tensor, " rows"],
        last: Int[Tensor, " rows"],
        resid: dict[int, Float[Tensor, "rows d_thinking"]],
    ) -> tuple[Int[Tensor, " rows"], dict[int, Float[Tensor, "rows d_thinking"]]]:
        """One step on: the tokens that the sentence under way has in each row, and the means over it.

        Args:
            items: which item each row is.
            last: the token that each row emitted last; −1 at its first.
            resid: the newest states, per layer.

        Returns:
            Lengths, 0 where the next token begins a sentence; and the means, from the state that the sentence's first
            token is predicted from to the newest.
        """
        begins = (last < 0) | self.enders[last.clamp(min=0)]
        length = torch.where(begins, 0, self.length[items] + 1)
        self.length[items] = length
        means = {}
        for layer, state in resid.items():
            if layer not in self.sums:
                self.sums[layer] = torch.zeros(len(self.length), state.shape[-1], device=self.length.device)
            state = state.to(self.length.device).float()
            total = torch.where(begins[:, None], state, self.sums[layer][items] + state)
            self.sums[layer][items] = total
            means[layer] = total / (length + 1)[:, None]
        return length, means
