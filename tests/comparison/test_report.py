"""The report of real jobs and of records with many languages: every file is there, and says what it must."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_job
from synthetic_results import results, save
from tiny_models import BLOCKS, save_tiny_model

from mwanda.comparison.__main__ import main
from mwanda.export import masks
from mwanda.job.run import run
from mwanda.languages import known


ROOT = Path(__file__).parent.parent.parent
NO_RIA = "error: --baseline=criterion=ria: no run has it; choices: criterion=wanda"


def report_of(folder: Path) -> str:
    """Return the report without the blanks that only align its columns."""
    return re.sub(" +", " ", (folder / "report.md").read_text(encoding="utf-8"))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three jobs that look inside and keep their masks, and one that failed."""
    model = save_tiny_model("llama", tmp_path_factory.mktemp("model"))
    folder = tmp_path_factory.mktemp("sweep")
    for criterion, sparsity in (("wanda", 0.5), ("magnitude", 0.5), ("wanda", 0.7)):
        more = [f"criterion={criterion}", f"sparsity={sparsity}", "inside=full", "inside.neuron_share=0.2"]
        overrides = tiny_job.overrides(model, *more, "inside.tokens=8", "export=masks")
        name = f"{criterion}-{sparsity}"
        run(tiny_job.spec(folder / name, overrides))
    save(folder / "failed", {**results(), "status": "failed", "error": {"type": "ModelError", "message": "no"}})
    main([str(folder)])
    return folder


def test_a_report_of_real_jobs(sweep: Path) -> None:
    report = report_of(sweep / "comparison")
    assert "3 runs, 3 configurations." in report
    assert "| wanda, 0.5 |" in report
    assert "| failed | failed | ModelError: no |" in report
    for kind in ("energy", "profiles", "masks", "neurons"):
        assert {row["configuration"] for row in rows(sweep / "comparison" / f"inside_{kind}.csv")} == {
            "wanda, 0.5",
            "magnitude, 0.5",
            "wanda, 0.7",
        }
    pictures = {path.name for path in (sweep / "comparison").glob("*.png")}
    assert pictures >= {"ratios.png", "languages.png", "sparsity.png", "layers.png", "mask_overlap.png"}
    assert pictures >= {"inside_energy_lost.png", "inside_drift.png", "inside_energy_0.png", "inside_profiles.png"}
    for name in pictures:
        assert (sweep / "comparison" / name).read_bytes().startswith(b"\x89PNG")
        assert (sweep / "comparison" / name).with_suffix(".svg").stat().st_size > 1000
        assert f"({name})" in report


def test_masks_of_two_runs_are_compared(sweep: Path) -> None:
    found = rows(sweep / "comparison" / "mask_overlap.csv")
    assert len(found) == 3 * BLOCKS
    kept = [masks.load(sweep / name / "masks.safetensors") for name in ("wanda-0.5", "magnitude-0.5")]
    names = [name for name in kept[0] if ".layers.0." in name]
    shared, either = (
        sum(int(getattr(np, f"logical_{how}")(kept[0][name].numpy(), kept[1][name].numpy()).sum()) for name in names)
        for how in ("and", "or")
    )
    (row,) = [
        row
        for row in found
        if {row["configuration"], row["other"]} == {"wanda, 0.5", "magnitude, 0.5"} and row["layer"] == "0"
    ]
    assert float(row["intersection_over_union"]) == pytest.approx(shared / either, rel=1e-5)
    assert float(row["by_chance"]) == pytest.approx(1 / 3, abs=0.01)


def test_many_languages_and_seeds_can_be_drawn(tmp_path: Path) -> None:
    codes = sorted(known())[:60]
    for number, (criterion, seed) in enumerate((c, s) for c in ("wanda", "mwanda") for s in (0, 1)):
        ratios: dict[str, float | None] = {code: 1 + place / 10 + seed / 100 for place, code in enumerate(codes)}
        ratios[codes[5]] = None if criterion == "mwanda" else 3.0
        save(tmp_path / str(number), results(criterion, seed=seed, ratios=ratios), {"seed": seed})
    main([str(tmp_path), "--output", str(tmp_path / "report"), "--columns", "family"])
    report = report_of(tmp_path / "report")
    assert "| wanda | 2 |" in report
    assert "∞" in report
    languages = {row["language"] for row in rows(tmp_path / "report" / "results.csv")}
    assert languages == set(codes)


def test_different_protocols_are_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "a", results())
    save(tmp_path / "b", results(protocol=("ffff", "sentence/1", "embedded")))
    main([str(tmp_path), "--no-plots"])
    assert "warning: perplexities of 2 protocols are not comparable" in capsys.readouterr().err
    report = report_of(tmp_path / "comparison")
    assert report.count("## Perplexity:") == 2
    assert "- On embedded (sentence/1 ffff): At 50 % sparsity, " in report
    assert "> **Careful:** perplexities of 2 protocols" in report
    assert not list((tmp_path / "comparison").glob("*.png"))


def test_each_text_has_pictures_of_its_own(tmp_path: Path) -> None:
    for text in ("first", "second", "third"):
        for criterion in ("wanda", "mwanda"):
            save(tmp_path / f"{text}-{criterion}", results(criterion, protocol=("ffff", "sentence/1", text)))
    main([str(tmp_path)])
    pictures = {path.name for path in (tmp_path / "comparison").glob("ratios*.png")}
    assert pictures == {"ratios.png", "ratios_2.png", "ratios_3.png"}
    assert "by configuration: second (sentence/1 ffff)" in report_of(tmp_path / "comparison")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "error: DIR=nothing: there is no such folder"),
        (["runs", "--baseline", "criterion"], "error: --baseline=criterion: is written KEY=VALUE,KEY=VALUE"),
        (["runs", "--baseline", "criterion=ria"], NO_RIA),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "runs" / "a", results())
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.strip() == message


def test_tables_alone_load_no_matplotlib(tmp_path: Path) -> None:
    save(tmp_path / "runs" / "a", results())
    code = (
        "import sys; from mwanda.comparison.__main__ import main; main(sys.argv[1:]); "
        "print('loaded:', *(name for name in ('matplotlib', 'lm_eval', 'wandb') if name in sys.modules))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "runs"), "--no-plots"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded:"


def test_a_folder_of_the_users_is_not_written_into(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "report.md").write_text("precious")
    for output, reason in (("mine", "holds report.md, which is not known"), ("mine/report.md", "is a file")):
        with pytest.raises(SystemExit) as ended:
            main([str(tmp_path), "--output", str(tmp_path / output)])
        assert ended.value.code == 2
        assert reason in capsys.readouterr().err
    assert (tmp_path / "mine" / "report.md").read_text() == "precious"
