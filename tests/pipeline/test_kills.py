"""A run that is killed at random moments is the run that was never killed."""

import pytest

from tests.pipeline.kills import kill_and_compare


@pytest.mark.slow
@pytest.mark.long
def test_killed_and_resumed_is_never_killed(tmp_path):
    assert kill_and_compare(2, tmp_path, 1, "--engine", "processes:2") == []
