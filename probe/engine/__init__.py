"""Running work on many items and keeping finished parts on disk, so that an interrupted run resumes."""

from probe.engine.batches import PARTS as PARTS, in_stream as in_stream
from probe.engine.kept import (
    KeptFolder as KeptFolder,
    Key as Key,
    adopt as adopt,
    difference as difference,
    kept as kept,
    remove_empty as remove_empty,
)
from probe.engine.lock import LOCK as LOCK, FolderLock as FolderLock
