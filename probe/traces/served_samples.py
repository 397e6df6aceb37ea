"""Samples of any prompts that servers write, such as continuations of the first part of a trace."""

from collections.abc import Iterator, Sequence, Set

from probe.errors import ProbeError
from probe.hooks import check_prompts
from probe.models import Model, Sampling
from probe.servers import Ask, Servers
from probe.traces.answers import ask_for, emitted
from probe.traces.sampling import PLAIN, sample_keys


def served_samples(
    model: Model,
    servers: Servers,
    prompts: Sequence[Sequence[int]],
    samples: int,
    max_new_tokens: int,
    *,
    sampling: Sampling = PLAIN,
    seed: int = 0,
    skip: Set[int] = frozenset(),
) -> Iterator[tuple[int, int, list[int], bool]]:
    """Let servers write several continuations of each prompt.

    A prompt is sent as token ids, or as a text that has exactly these tokens; it is no message of a chat.

    Args:
        model: the model that the servers run, loaded here.
        servers: from :func:`~probe.traces.open_servers`.
        prompts: token ids of each prompt.
        samples: the number of samples of each prompt.
        max_new_tokens: the largest number of tokens of a sample.
        sampling: how tokens are chosen.
        seed: gives the seed that is sent with each sample.
        skip: indices of prompts whose samples are not wanted.

    Yields:
        The index of a prompt; the number of the sample; its token ids without the end token; and whether the limit on
        tokens stopped it. In the order in which they arrive.

    Raises:
        ProbeError: if a prompt with its sample does not fit the context of a server, or a server stops answering.
    """
    check_prompts(model, prompts, max_new_tokens)
    keys = sample_keys(prompts, samples, seed)
    longest = max(map(len, prompts), default=0) + max_new_tokens
    if servers.context is not None and longest > servers.context:
        raise ProbeError(
            f"the server at {servers.servers[0].client.url} has a context of {servers.context} tokens, but a text "
            f"and its continuation may have {longest}; start it with a longer one, or give fewer new tokens"
        )

    def asks() -> Iterator[tuple[int, Ask]]:
        for at, prompt in enumerate(prompts):
            for number, key in enumerate(keys[at] if at not in skip else []):
                yield (
                    at * samples + number,
                    ask_for(model, prompt, max_new_tokens, sampling, key, by_ids=servers.by_ids),
                )

    for item, answer in servers.answers(asks()):
        at, number = divmod(item, samples)
        tokens, cut, _ = emitted(model, prompts[at], answer, max_new_tokens, f"sample {number} of prompt {at}")
        yield at, number, tokens, cut
