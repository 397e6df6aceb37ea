"""Shards of work and where they are kept: what is finished stays finished, whoever runs it."""

from probe.engine.batches import in_batches as in_batches, in_stream as in_stream
