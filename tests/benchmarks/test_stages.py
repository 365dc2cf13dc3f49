"""Every stage is seen, and they are parts of one whole."""

import stages
from workload import Workload

from mwanda.pruner import engine


def test_stages_are_shares_of_the_whole() -> None:
    audit = engine.audit
    task = Workload("qwen2", tokens=64, length=8, blocks=2, threads=1).build()
    found = stages.shares(task)
    assert list(found) == list(stages.STAGES)
    assert all(share > 0 for share in found.values())
    assert sum(found.values()) < 1
    assert engine.audit is audit
