"""Runs that are killed and resumed, that keep blocks on disk, and that several processes share."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_job
from tiny_models import save_tiny_model, tiny_calibration, tiny_model

from mwanda.criteria.wanda import Wanda
from mwanda.errors import ConfigurationError, MemoryShortageError
from mwanda.export.masks import load
from mwanda.job.folder import CHECKPOINT, WORK
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner
from mwanda.pruner.engine import Order
from mwanda.pruner.run_checkpoint import RunCheckpoint
from mwanda.pruner.runtime import Runtime
from mwanda.schedules.uniform import Uniform
from mwanda.system.conf import CONF


ROOT = CONF.parent
NUMBERS = ("model", "criterion", "sparsity", "calibration", "schedule", "perplexity")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model("llama", tmp_path_factory.mktemp("llama"))


def numbers(results: dict[str, Any]) -> dict[str, Any]:
    """Return what two runs of one configuration have in common."""
    return {key: results[key] for key in NUMBERS}


def same_masks(first: Path, second: Path) -> bool:
    masks, others = (load(folder / "masks.safetensors") for folder in (first, second))
    return set(masks) == set(others) and all(mask.equal(others[name]) for name, mask in masks.items())


class Killed(BaseException):
    """Stands for the end of the process."""


def stop_after(blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process end when that many blocks have been written down."""
    finish, left = RunCheckpoint.finish, [blocks]

    def finish_and_count(self: RunCheckpoint, *args: Any, **kwargs: Any) -> None:
        finish(self, *args, **kwargs)
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    monkeypatch.setattr(RunCheckpoint, "finish", finish_and_count)


@pytest.mark.parametrize("offload", ["none", "disk"])
@pytest.mark.parametrize("order", ["arrival", "block", "oneshot"])
def test_an_interrupted_run_is_taken_up_and_ends_as_one_that_was_not(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str, offload: str
) -> None:
    settings = (f"pruner.order={order}", f"model.offload={offload}", "export=masks", "schedule=owl_cwl")
    expected = tiny_job.run(model, tmp_path / "whole", *settings)
    for blocks in (1, 2, 3):
        folder = tmp_path / f"killed-{blocks}"
        with monkeypatch.context() as context, pytest.raises(Killed):
            stop_after(2 if order == "oneshot" else blocks, context)
            tiny_job.run(model, folder, *settings)
        assert json.loads((folder / "results.json").read_text())["status"] == "failed"
        with pytest.raises(ConfigurationError, match=r"interrupted run; add resume=true"):
            tiny_job.run(model, folder, *settings)
        results = tiny_job.run(model, folder, *settings, "resume=true")
        assert numbers(results) == numbers(expected)
        assert not (folder / CHECKPOINT).exists()
        assert not (folder / WORK).exists()
        assert same_masks(folder, tmp_path / "whole")


def test_the_dense_model_is_not_measured_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as context, pytest.raises(Killed):
        stop_after(1, context)
        tiny_job.run(model, tmp_path / "run")
    caplog.clear()
    tiny_job.run(model, tmp_path / "run", "resume=true")
    assert "taken from checkpoint" in caplog.text


def test_a_checkpoint_of_another_configuration_is_not_used(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as context, pytest.raises(Killed):
        stop_after(1, context)
        tiny_job.run(model, tmp_path / "run")
    results = tiny_job.run(model, tmp_path / "run", "resume=true", "sparsity=0.3")
    assert "belongs to another configuration" in caplog.text
    assert numbers(results) == numbers(tiny_job.run(model, tmp_path / "other", "sparsity=0.3"))


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_killed_process_is_resumed_from_the_command_line(model: Path, tmp_path: Path, blocks: int) -> None:
    expected = tiny_job.run(model, tmp_path / "whole", "export=masks", f"output_dir={tmp_path / 'killed'}")
    script = tmp_path / "killed.py"
    script.write_text(
        "import os, signal, sys\n"
        "from mwanda.pruner.run_checkpoint import RunCheckpoint\n"
        "finish, left = RunCheckpoint.finish, [int(sys.argv.pop(1))]\n"
        "def kill(self, *args, **kwargs):\n"
        "    finish(self, *args, **kwargs)\n"
        "    left[0] -= 1\n"
        "    if left[0] == 0:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "RunCheckpoint.finish = kill\n"
        "import runpy\n"
        f"runpy.run_path({str(ROOT / 'run.py')!r}, run_name='__main__')\n"
    )
    settings = tiny_job.overrides(model, "export=masks", f"output_dir={tmp_path / 'killed'}")
    killed = _python(str(script), str(blocks), *settings)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "killed" / "results.json").exists()
    resumed = _python(str(ROOT / "run.py"), *settings, "resume=true")
    assert resumed.returncode == 0, resumed.stderr
    results = json.loads((tmp_path / "killed" / "results.json").read_text())
    assert numbers(results) | {"criterion": 0} == numbers(expected) | {"criterion": 0}
    assert same_masks(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.parametrize("family", ["llama", "bloom", "mixtral"])
def test_blocks_on_disk_give_the_same_results_and_a_model_that_loads(family: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = save_tiny_model(family, tmp_path / "model")
    settings = ("export=hf", "schedule=owl_cwl", "pruner.expert_tokens=4")
    expected = tiny_job.run(model, tmp_path / "memory", *settings)
    results = tiny_job.run(model, tmp_path / "disk", *settings, "model.offload=disk")
    assert numbers(results) == numbers(expected)
    first, second = (AutoModelForCausalLM.from_pretrained(tmp_path / place / "model") for place in ("memory", "disk"))
    weights = second.state_dict()
    for name, value in first.state_dict().items():
        assert value.equal(weights[name]), name


@pytest.mark.parametrize("order", ["block", "oneshot"])
@pytest.mark.parametrize("activations", ["ram", "disk"])
def test_waiting_activations_do_not_change_results(model: Path, tmp_path: Path, order: str, activations: str) -> None:
    expected = tiny_job.run(model, tmp_path / "device", f"pruner.order={order}")
    settings = (f"pruner.order={order}", f"pruner.activations={activations}", "model.offload=disk")
    assert numbers(tiny_job.run(model, tmp_path / "away", *settings)) == numbers(expected)


def test_a_run_that_cannot_fit_is_refused_with_the_setting_that_would(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mwanda.job import memory
    from mwanda.system import device

    monkeypatch.setattr(memory, "LIBRARIES", 0)
    monkeypatch.setattr(device, "available_bytes", lambda *_, **__: 60_000)
    with pytest.raises(MemoryShortageError, match=r"model\.offload=disk.* would take about"):
        tiny_job.run(model, tmp_path / "run", "calibration.sequences=2")
    assert not (tmp_path / "run").exists()


def test_two_processes_give_the_results_of_one(model: Path, tmp_path: Path) -> None:
    settings = ("schedule=owl_cwl", "export=masks", "pruner.batch_size=1", "evaluation.batch_tokens=64")
    expected = tiny_job.run(model, tmp_path / "one", *settings)
    arguments = tiny_job.overrides(model, *settings, f"output_dir={tmp_path / 'two'}")
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(_free_port()))
    shared = _python(*launcher, str(ROOT / "run.py"), *arguments)
    assert shared.returncode == 0, shared.stderr
    results = json.loads((tmp_path / "two" / "results.json").read_text())
    assert results["sparsity"] == expected["sparsity"]
    for code, measured in expected["perplexity"]["pruned"].items():
        assert results["perplexity"]["pruned"][code] == pytest.approx(measured)
    assert same_masks(tmp_path / "two", tmp_path / "one")
    assert shared.stdout.count("Sparsity per block") == 1


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def test_a_model_spread_by_device_map_gives_the_same_results(model: Path, tmp_path: Path) -> None:
    expected = tiny_job.run(model, tmp_path / "one")
    assert numbers(tiny_job.run(model, tmp_path / "spread", "model.device_map=auto")) == numbers(expected)


@pytest.mark.parametrize("order", ["arrival", "block", "oneshot"])
def test_forward_functions_that_others_have_wrapped_stay_as_they_are(order: Order, tmp_path: Path) -> None:
    """As those of a model that is spread over devices, which moves its inputs from one to the next."""
    from accelerate import dispatch_model

    model, plain = tiny_model("llama"), tiny_model("llama")
    parts = ["model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "model.rotary_emb", "lm_head"]
    dispatch_model(model, dict.fromkeys(parts, "cpu"), force_hooks=True)
    wrapped = {name: module.__dict__.get("forward") for name, module in model.named_modules()}
    assert any(wrapped.values())
    for each, folder in ((model, tmp_path / "wrapped"), (plain, tmp_path / "plain")):
        checkpoint = RunCheckpoint(folder, "key")
        Pruner(order, batch_size=4).prune(
            each, tiny_calibration(), Wanda(), Uniform(), Unstructured(), 0.5, Runtime(checkpoint=checkpoint)
        )
    assert {name: module.__dict__.get("forward") for name, module in model.named_modules()} == wrapped
    for name, value in plain.state_dict().items():
        assert model.state_dict()[name].equal(value), name
