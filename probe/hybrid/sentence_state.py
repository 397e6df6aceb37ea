"""The position of each row in its current sentence, updated with every emitted token."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

_CLOSING = "\"'”’)]}*_ 」』）"
_STOPS = (".", "!", "?", "。", "！", "？")


def sentence_enders(tokenizer: PreTrainedTokenizerFast, vocab: int) -> Bool[Tensor, " vocab"]:
    """Find the tokens that end a sentence: they end in a stop, question or exclamation mark, or contain a newline.

    A decimal point counts as well, because the next token is not known while a text is being written.

    Args:
        tokenizer: supplies the text of each token.
        vocab: the size of the model's vocabulary, which may be padded.
    """
    known = min(vocab, len(tokenizer))
    texts = tokenizer.batch_decode([[token] for token in range(known)], clean_up_tokenization_spaces=False)
    ends = [text.rstrip(_CLOSING).endswith(_STOPS) or "\n" in text for text in texts]
    return torch.tensor(ends + [False] * (vocab - known))


class SentenceState:
    """For each item, the number of tokens in its current sentence and the mean residual stream over them.

    Args:
        enders: from :func:`sentence_enders`, on the device of the base model.
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
        """Advance some rows by one token.

        Args:
            items: the item of each row.
            last: the token that each row emitted last; −1 before its first token.
            resid: the newest state of each row, for each layer.

        Returns:
            The number of tokens in the current sentence of each row, 0 where the next token begins a sentence; and for
            each layer the mean state, from the state that predicts the sentence's first token to the newest.
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
