"""What a login node prepares, jobs without a network run on."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import tiny_job
from hub_server import ROOT, HubServer, hub_environment
from tiny_models import save_tiny_model

from mwanda.corpora.embedded import all_sentences


def push_dataset(hub: HubServer, folder: Path, name: str, files: dict[str, dict[str, list[dict[str, object]]]]) -> None:
    """Push a dataset of rows by configuration and split."""
    card = ["---", "configs:"]
    for configuration, splits in files.items():
        card += [f"- config_name: {configuration}", "  data_files:"]
        for split, rows in splits.items():
            card += [f"  - split: {split}", f"    path: {split}/{configuration}.parquet"]
            (folder / split).mkdir(parents=True, exist_ok=True)
            path = folder / split / f"{configuration}.parquet"
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    (folder / "README.md").write_text("\n".join([*card, "---", ""]), encoding="utf-8")
    hub.push("dataset", name, folder)


def test_a_sweep_that_was_prepared_runs_with_the_hub_off(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    model = [each for each in tiny_job.overrides(Path("org/tiny")) if not each.startswith("langs")]
    shared = [
        *model,
        "langs=[eng_Latn,swh_Latn]",
        "corpus=flores_plus",
        "corpus.path=org/flores",
        "corpus.revision=null",
        "model.revision=null",
        "evaluation=full",
        "evaluation.tasks=[xnli_sw]",
        "evaluation.limit=2",
    ]

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        known = hub_environment(hub.url, tmp_path / "home") | environment
        command = [sys.executable, str(ROOT / "run.py"), *arguments, *shared]
        return subprocess.run(command, cwd=work, env=known, capture_output=True, text=True, timeout=300, check=False)

    with HubServer() as hub:
        hub.push("model", "org/tiny", save_tiny_model("llama", tmp_path / "tiny"))
        texts = {code: all_sentences(code) for code in tiny_job.LANGUAGES}
        halves = {
            code: {"dev": [{"text": each} for each in text[::2]], "devtest": [{"text": each} for each in text[1::2]]}
            for code, text in texts.items()
        }
        push_dataset(hub, tmp_path / "flores", "org/flores", halves)  # type: ignore[arg-type]
        rows: list[dict[str, object]] = [{"premise": f"{n}", "hypothesis": "?", "label": n % 3} for n in range(5)]
        push_dataset(hub, tmp_path / "xnli", "facebook/xnli", {"sw": {"train": rows, "validation": rows}})
        (tmp_path / "home").mkdir()
        prepared = run("--multirun", "mode=prepare", "criterion=wanda,mwanda", "model.device=cuda")
        assert prepared.returncode == 0, prepared.stderr
        assert prepared.stdout.count("ready: org/tiny, 2 languages of flores_plus") == 2
        assert list(work.rglob("*")) == []
    done = run("criterion=mwanda", "output_dir=run", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    results = json.loads((work / "run" / "results.json").read_text())
    assert results["status"] == "complete"
    assert results["tasks"]["about"]["xnli_sw"]["documents"] == 2
    assert results["fingerprints"]["model"].startswith("org/tiny@")
