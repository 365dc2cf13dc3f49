"""A real SLURM on this machine, for as long as the tests take."""

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest


SCRIPT = Path(__file__).with_name("cluster.sh")


@pytest.fixture(scope="session")
def cluster() -> Iterator[dict[str, str]]:
    """Return the environment in which SLURM's commands find a cluster of one node, 16 elements an array."""
    installed = subprocess.run([SCRIPT, "install"], capture_output=True, text=True, check=False)
    if installed.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail(f"in CI these tests may not be skipped: {installed.stderr}")
        pytest.skip(f"SLURM cannot be installed here: {installed.stderr.strip()}")
    # Not in pytest's own folders: the path of a socket is to be short.
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        try:
            ports = os.environ | {"CLUSTER_PORT": str(_free_ports())}
            started = subprocess.run([SCRIPT, "start", folder], env=ports, capture_output=True, text=True, check=False)
            assert started.returncode == 0, started.stderr
            inherited = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_"))}
            yield inherited | {"SLURM_CONF": f"{folder}/slurm.conf", "OMP_NUM_THREADS": "1"}
        finally:
            subprocess.run([SCRIPT, "stop", folder], capture_output=True, check=True)


def _free_ports() -> int:
    """Return the first of two neighbouring ports that nobody listens on."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            with suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port
