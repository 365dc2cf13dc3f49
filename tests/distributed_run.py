"""What each of several processes does for `test_distributed.py`: `python distributed_run.py FOLDER`."""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from interruption import Interrupted, Job, StopAt
from safetensors.torch import save_file
from tiny_models import tiny_calibration, tiny_model, tiny_tokenizer

from mwanda.corpora.embedded import Embedded
from mwanda.criteria.mwanda import MWanda
from mwanda.criteria.sparsegpt import SparseGPT
from mwanda.errors import CalibrationError
from mwanda.evaluation.harness import Harness
from mwanda.evaluation.task_scores import Scores
from mwanda.languages import find
from mwanda.models import blocks_of
from mwanda.pruner import Pruner
from mwanda.pruner.engine import Order
from mwanda.pruner.run_checkpoint import RunCheckpoint
from mwanda.pruner.runtime import Runtime
from mwanda.schedules.fisher import Fisher
from mwanda.schedules.owl_cwl import OWLCWL
from mwanda.solvers import Solver
from mwanda.solvers.admm import ADMM
from mwanda.solvers.dsnot import DSnoT
from mwanda.solvers.swap import Swap
from mwanda.statistics import LanguageStatistics, LanguageWeights, Needs, SequenceSums
from mwanda.system.distributed import World, join, leave
from mwanda.system.progress import Silent


CALIBRATION = tiny_calibration(languages=3, sequences=(2, 3, 2), length=10)
TEXTS = ("", "outputs/day", "Kʉ̃ɔ̃ 🌍")
JOBS = ("mwanda", "sparsegpt", "mixtral", "swap", "admm", "dsnot", "fisher", "fisher_mixtral")
BESIDE = "beside the dense model"
NEEDS = (Needs.NORMS, Needs.COUNTS, Needs.SECOND_MOMENTS, Needs.MEANS)


def job_of(name: str, order: Order) -> Job:
    """Return a job of which the masks do not hang on rounding."""
    model = tiny_model("mixtral" if "mixtral" in name else "llama", dtype=torch.float64)
    criterion = SparseGPT() if name == "sparsegpt" else MWanda()
    balanced = replace(CALIBRATION, weights=LanguageWeights((1.0, 3.0, 2.0), balanced=True))
    calibration = balanced if name in SOLVERS else CALIBRATION
    pruner = Pruner(order, 8, expert_tokens=20)
    schedule = Fisher(signal_fraction=1.0, draws=2) if "fisher" in name else OWLCWL(2.0)
    return Job(model, calibration, pruner, criterion, schedule, solver=SOLVERS.get(name))


SOLVERS: dict[str, Solver] = {"swap": Swap(), "admm": ADMM(), "dsnot": DSnoT(), BESIDE: ADMM(match="dense")}


def statistics_of_rank(rank: int, needs: Needs) -> LanguageStatistics:
    """Return what a process has seen: whole numbers, so that their sums are exact."""
    statistics = LanguageStatistics.zeros(3, 4, needs=needs)
    inputs = torch.arange(24.0).reshape(2, 3, 4) - 7 * rank
    statistics.add(SequenceSums.of(inputs, needs), torch.tensor([rank, 2]))
    return statistics


def tensors_of(statistics: LanguageStatistics) -> dict[str, torch.Tensor]:
    """Return the sums of statistics by their names."""
    return {name: value for name, value in vars(statistics).items() if isinstance(value, torch.Tensor)}


def prune(
    job: Job, world: World, checkpoint: RunCheckpoint | None = None, stop: StopAt | None = None
) -> tuple[Any, Any]:
    """Return the pruned model and the report."""
    report = job.pruner.prune(
        job.dense,
        job.calibration,
        job.criterion,
        job.schedule,
        job.pattern,
        job.sparsity,
        Runtime(checkpoint=checkpoint, world=world, progress=stop or Silent()),
        job.solver,
    )
    return job.dense, report


def task_scores(world: World) -> tuple[Scores, int]:
    """Return what a tiny model does in three offline tasks, and how many forward passes of this process it took."""
    passes: list[object] = []
    model, harness = tiny_model("llama", num_hidden_layers=1), Harness(("parallel_cloze",), limit=3)
    tasks = harness.load(find(["eng_Latn", "swh_Latn", "vie_Latn"]), Embedded(), seed=0)
    model.get_input_embeddings().register_forward_pre_hook(lambda *_: passes.append(None))
    return harness.score(model, tiny_tokenizer(), tasks, world=world), len(passes)


def _as_lists(scores: Scores) -> dict[str, Any]:
    return {
        task: {metric: [[*key, value] for key, value in values.items()] for metric, values in metrics.items()}
        for task, metrics in scores.values.items()
    }


def take_part(folder: Path) -> None:
    """Do everything as one of the processes."""
    world = join()
    left: dict[str, Any] = {"world": [world.rank, world.size, world.first]}
    world.all_reduce([total := torch.tensor([1, 10]) * (world.rank + 1)])
    left["total"] = total.tolist()
    left["gathered"] = world.all_gather(f"ʉ{world.rank}")
    left["same"] = [world.broadcast(f"{text}{world.rank}" if text else "") for text in TEXTS]

    def save(name: str, tensors: dict[str, torch.Tensor]) -> None:
        own = {key: value.clone() for key, value in tensors.items()}
        save_file(own, folder / f"{name}-{world.rank}.safetensors")

    for needs in NEEDS:
        statistics = statistics_of_rank(world.rank, needs)
        world.all_reduce(each for each in statistics.tensors() if each is not None)
        save(f"statistics-{needs.name}", tensors_of(statistics))
    for order in get_args(Order):
        for name in JOBS:
            model, report = prune(job_of(name, order), world)
            save(f"{name}-{order}", model.state_dict())
            left[f"{name}-{order}"] = report.sparsities
        if order == "block":
            save(BESIDE, prune(job_of(BESIDE, order), world)[0].state_dict())
        place = folder / f"checkpoint-{order}"
        try:
            prune(job_of("mwanda", order), world, RunCheckpoint(place, "key", world), StopAt(3))
        except Interrupted:
            checkpoint = RunCheckpoint(place, "key", world)
            left[f"finished-{order}"] = checkpoint.finished("dense") + checkpoint.finished("prune")
        world.barrier()
        model, _ = prune(job_of("mwanda", order), world, checkpoint)
        save(f"resumed-{order}", model.state_dict())
        checkpoint.discard()
        few = job_of("mwanda", order)
        alone = Job(few.dense, tiny_calibration(languages=1, sequences=1), few.pruner)
        try:
            prune(alone, world)
        except CalibrationError as error:
            left[f"few-{order}"] = str(error)
        matrices = [matrix for block in blocks_of(alone.dense) for matrix in block.matrices]
        left[f"few-zeros-{order}"] = sum(int((matrix.weight == 0).sum()) for matrix in matrices)
    scores, asked = task_scores(world)
    left["scores"], left["asked"] = _as_lists(scores), asked
    passes: list[object] = []
    job = Job(tiny_model("llama"), CALIBRATION, Pruner("arrival", 3))
    blocks_of(job.dense)  # which follows a few tokens through the model, and knows their way from then on
    job.dense.get_input_embeddings().register_forward_pre_hook(lambda *_: passes.append(None))
    prune(job, world)
    left["batches"] = len(passes)
    world.barrier()
    leave()
    (folder / f"{world.rank}.json").write_text(json.dumps(left))


def main() -> None:
    """Fork the processes, and fail when one of them does."""
    children = []
    for rank in range(int(os.environ["WORLD_SIZE"])):
        child = os.fork()
        if child == 0:
            signal.alarm(240)  # processes that wait for each other for ever are to fail, not to hang
            os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(rank)
            take_part(Path(sys.argv[1]))
            os._exit(0)
        children.append(child)
    while children:
        child, status = os.wait()
        children.remove(child)
        if status:
            for other in children:
                os.kill(other, signal.SIGKILL)
            sys.exit(1)


if __name__ == "__main__":
    main()
