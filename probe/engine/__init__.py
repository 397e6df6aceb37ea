"""Running work on many items and keeping finished parts on disk, so that an interrupted run resumes."""

from probe.engine.batches import in_stream as in_stream
