"""report.html as a file: its policy, and what is in it; tests/browser looks at it."""

import base64
import hashlib
import json
import re
from pathlib import Path

import pyarrow.parquet
import pytest
from synthetic_results import results, save, save_sweep

from mwanda.comparison import html
from mwanda.comparison.__main__ import main


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("sweep")
    save_sweep(folder, sparsities=(0.5,), seeds=1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MWANDA_CACHE", str(tmp_path_factory.mktemp("cache")))
        main([str(folder), "--no-plots"])
    return (folder / "comparison" / "report.html").read_text(encoding="utf-8")


def content(page: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    found: dict = json.loads(text)
    return found


def test_only_the_scripts_and_the_style_in_it_may_run(page: str) -> None:
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', page)
    assert policy.startswith("default-src 'none'; base-uri 'none'; form-action 'none'; script-src ")
    parts = re.findall(r"<(?:script|style)>(.*?)</(?:script|style)>", page, flags=re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts]
    assert set(re.findall(r"'sha256-(.*?)'", policy)) == set(hashes)
    assert len(hashes) == 3
    assert "unsafe" not in policy


def test_the_page_is_small_and_names_no_address_to_load(page: str) -> None:
    assert len(page) < 1_500_000
    document = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r"<(?:link|img|iframe|object)|url\(|@import", document)
    assert not re.findall(r"<script[^>]*src=", page)


def test_its_data_are_those_of_the_runs_and_cannot_end_their_element(page: str) -> None:
    found = content(page)
    assert [each["code"] for each in found["languages"]].count("arb_Arab") == 1
    assert {each["method"] for each in found["configurations"]} == {
        "wanda, uniform", "mwanda, uniform", "mwanda, cwl", "magnitude, uniform",
    }  # fmt: skip
    (failed,) = [each for each in found["unfinished"] if each["name"] == "failed"]
    assert failed["reason"] == "ModelError: no <b>such</b> model"
    assert "<b>such" not in page


def test_one_legend_has_colours_and_shapes(page: str) -> None:
    (text,) = re.findall(r'<script type="application/json" id="charts">(.*?)</script>', page, flags=re.DOTALL)
    legends = {name: chart.get("legends", []) for name, chart in json.loads(text).items()}
    assert {name: len(each) for name, each in legends.items()} == {
        "curves": 1, "heat": 0, "paired": 1, "layers": 1, "matrices": 0, "seen": 1, "time": 1, "memory": 0, "tasks": 1,
        "inside": 1,
    }  # fmt: skip
    assert all("fill" in each for both in legends.values() for each in both)


def test_what_says_it_is_complete_and_is_not_is_named(tmp_path: Path) -> None:
    save(tmp_path / "whole", results())
    save(tmp_path / "half", {key: value for key, value in results().items() if key not in ("criterion", "sparsity")})
    main([str(tmp_path), "--no-plots"])
    report = (tmp_path / "comparison" / "report.md").read_text(encoding="utf-8")
    assert re.search(r"\| half +\| unreadable ", report)
    assert "1 runs, 1 configurations." in report
    assert pyarrow.parquet.read_table(tmp_path / "comparison" / "results.parquet").num_rows > 10


def test_names_that_tell_no_block_leave_only_the_picture_of_matrices_out(tmp_path: Path) -> None:
    made = results()
    made["sparsity"]["per_matrix"] = [{"name": "up", "shape": [2, 8], "zeros": 0, "zeros_before": 0}]
    save(tmp_path / "run", made)
    main([str(tmp_path), "--no-plots"])
    found = content((tmp_path / "comparison" / "report.html").read_text(encoding="utf-8"))
    (one,) = found["configurations"]
    assert [found["shapes"][one[key]] for key in ("layers", "matrices")] == [[[0.5, 0.5]] * 3, []]


def test_without_the_extra_the_report_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "available", lambda: False)
    save(tmp_path / "run", results())
    main([str(tmp_path), "--no-plots"])
    assert "pip install 'mwanda[report]'" in (tmp_path / "comparison" / "report.md").read_text(encoding="utf-8")
    assert not (tmp_path / "comparison" / "report.html").exists()


def test_where_a_run_lies_is_no_difference_between_configurations(page: str) -> None:
    keys = {key.split(".")[0] for key, _ in content(page)["settings"]}
    assert keys == {"seed", "sparsity", "criterion"}
