"""The comparison in the terminal, and a run's summary again."""

import math
from pathlib import Path

import pytest
import tiny_job
from synthetic_results import results, save, save_sweep
from tiny_models import save_tiny_model

from mwanda import show
from mwanda.comparison.__main__ import main
from mwanda.comparison.terminal import sparkline
from mwanda.job.run import run


def test_a_sparkline_says_high_low_broken_and_missing() -> None:
    assert sparkline([0.0, 0.5, 1.0, math.inf, None], 0.0, 1.0) == "▁▅█× ".replace("▅", sparkline([0.5], 0.0, 1.0))
    assert sparkline([0.0, 1.0], 0.0, 1.0) == "▁█"
    assert sparkline([3.0], 3.0, 3.0) == "▁"


def test_tables_and_sparklines_are_printed_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    save_sweep(tmp_path, seeds=1, sentences=0)
    main([str(tmp_path), "--terminal"])
    printed = capsys.readouterr().out
    assert "mwanda, cwl, 0.6" in printed
    (line,) = [line for line in printed.splitlines() if "magnitude, uniform " in line]
    assert "▇█" in line
    assert "not complete: failed (failed: ModelError: no <b>such</b> model)" in printed
    assert not (tmp_path / "comparison").exists()


def test_a_run_is_shown_as_it_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_tiny_model("llama", tmp_path / "model")
    run(tiny_job.spec(tmp_path / "run", tiny_job.overrides(model)))
    capsys.readouterr()
    show.main([str(tmp_path / "run")])
    printed = capsys.readouterr().out
    assert "Perplexity per language" in printed
    assert "prunable weights are zero" in printed


@pytest.mark.parametrize(("status", "message"), [(None, "there is no results.json"), ("failed", "the run is failed")])
def test_what_cannot_be_shown_says_why(
    status: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if status:
        save(tmp_path / "run", {**results(), "status": status})
    with pytest.raises(SystemExit) as stopped:
        show.main([str(tmp_path / "run")])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
