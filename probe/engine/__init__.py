"""Work in shards that folders keep, so that an interrupted run resumes; and who makes them: here, processes or Ray."""

from probe.engine.engines import Engine as Engine, OpenEngine as OpenEngine, engine_of as engine_of
from probe.engine.kept import (
    KeptFolder as KeptFolder,
    Key as Key,
    difference as difference,
    remove_empty as remove_empty,
)
from probe.engine.lock import LOCK as LOCK, FolderLock as FolderLock
from probe.engine.shards import PARTS as PARTS, SHARD as SHARD, Shards as Shards
from probe.engine.tasks import Task as Task, run_tasks as run_tasks
