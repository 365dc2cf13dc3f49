"""What every test shares: helper modules of this folder can be imported, and small tensors use one thread."""

import os
import sys
from pathlib import Path

import pytest


# Read when torch is first imported; for tensors as small as these, waking other threads costs more than the work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("family_contract", "pruning_oracle")


@pytest.fixture(autouse=True)
def _cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a cache of its own, but for the real models, which take minutes to convert."""
    if "real" not in request.path.parts:
        monkeypatch.setenv("MWANDA_CACHE", str(tmp_path.parent / f"{tmp_path.name}-cache"))
