"""A real Chromium, and the report of a sweep that never was."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from synthetic_results import save_sweep
from webdriver import Browser, Sweep

from mwanda.comparison.report import write


SCRIPT = Path(__file__).with_name("browser.sh")


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Install what is missing, and return axe-core."""
    folder = tmp_path_factory.mktemp("axe")
    installed = subprocess.run([SCRIPT, "install", folder], capture_output=True, text=True, check=False)
    if installed.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail(f"in CI these tests may not be skipped: {installed.stderr}")
        pytest.skip(f"Chromium cannot be installed here: {installed.stderr.strip()}")
    return (folder / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def browser(axe: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture(scope="session")
def sweep(axe: str, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Four methods at two sparsities with two seeds on six languages; one run failed, one is torn."""
    folder = tmp_path_factory.mktemp("sweep")
    save_sweep(folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MWANDA_CACHE", str(tmp_path_factory.mktemp("cache")))
        return Sweep(folder, write([folder], folder / "comparison", plots=False).path)
