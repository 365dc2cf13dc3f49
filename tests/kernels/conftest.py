"""What the tests of kernels share."""

import os

import pytest


@pytest.fixture
def interpreted() -> None:
    """Skip the test where Triton does not interpret kernels, as it does (by all tests' `conftest`) without a GPU."""
    if os.environ.get("CI") != "true":  # there it is installed, and what cannot be tested fails
        pytest.importorskip("triton", reason="no Triton is installed here")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("there is a GPU: benchmarks/gpu.py tries the kernels on it")
