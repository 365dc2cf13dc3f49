"""What every test shares: helper modules of this folder can be imported, and small tensors use one thread."""

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest


# Read when torch is first imported; for tensors as small as these, waking other threads costs more than the work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if not list(Path("/dev").glob("nvidia[0-9]*")):  # read when Triton is first imported: its kernels run on the CPU
    os.environ.setdefault("TRITON_INTERPRET", "1")
sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("family_contract", "pruning_oracle")


@pytest.fixture(autouse=True)
def _cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a cache of its own, but for the real models, which take minutes to convert."""
    if "real" not in request.path.parts:
        monkeypatch.setenv("MWANDA_CACHE", str(tmp_path.parent / f"{tmp_path.name}-cache"))


@pytest.fixture(autouse=True)
def _no_status_is_written_after_a_test() -> Iterator[None]:
    """Fail the test that leaves a status thread behind: it would write into the files of a later one."""
    yield
    left = [thread for thread in threading.enumerate() if thread.name == "status"]
    for thread in left:
        thread.join(5)
    assert not [thread for thread in left if thread.is_alive()]
