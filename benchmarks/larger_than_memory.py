"""Peak memory of pruning a model whose blocks stay on disk, against its size and the number of its blocks.

    python benchmarks/larger_than_memory.py

Random Llama-like models with the dimensions of OpenLLaMA 3B (hidden size 3200, 123.9 M weights a block), bfloat16. Each
is written to disk block by block and pruned in a process of its own, whose peak resident memory is read at the end.
24 blocks are 6.4 GB; twice that is needed on disk.
"""

import argparse
import json
import tempfile
from pathlib import Path
from time import perf_counter

import torch
from measure import in_fresh_process
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from mwanda.calibration import CalibrationSet
from mwanda.criteria.wanda import Wanda
from mwanda.models import blocks_of
from mwanda.models.source import PretrainedModel
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner
from mwanda.pruner.engine import Order
from mwanda.pruner.runtime import Runtime
from mwanda.schedules.uniform import Uniform
from mwanda.system.device import peak_resident_bytes


GIB = 2**30
VOCABULARY = 32_000


def write_model(folder: Path, blocks: int) -> None:
    """Write a random model of `blocks` blocks without ever holding more than one of them."""
    config = AutoConfig.for_model(
        "llama",
        hidden_size=3200,
        intermediate_size=8640,
        num_hidden_layers=blocks,
        num_attention_heads=32,
        num_key_value_heads=32,
        vocab_size=VOCABULARY,
        bos_token_id=1,
        dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(folder)
    words = Tokenizer(WordLevel({"<unk>": 0, "<s>": 1}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", bos_token="<s>").save_pretrained(folder)
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in AutoModelForCausalLM.from_config(config).state_dict().items()}
    files: dict[str, str] = {}
    for part in [f"model.layers.{index}." for index in range(blocks)] + [""]:
        names = [name for name in shapes if name not in files and name.startswith(part)]
        file = f"{part or 'rest.'}safetensors"
        tensors = {name: _random(shapes[name]) for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        files |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def prune(folder: str, tokens: int, order: Order) -> tuple[int, int, float]:
    """Return peak resident memory after loading and after pruning, in bytes, and the seconds that pruning took."""
    loaded = PretrainedModel(folder, dtype="bfloat16", device="cpu", offload="disk").load()
    after_loading = peak_resident_bytes()
    sequences = torch.randint(2, VOCABULARY, (2, max(1, tokens // 128), 64), generator=torch.Generator().manual_seed(0))
    calibration = CalibrationSet(("aaa_Latn", "bbb_Latn"), tuple(sequences), "random tokens")
    with tempfile.TemporaryDirectory(dir=Path(folder).parent) as pruned:
        loaded.work_in(Path(pruned))
        start = perf_counter()
        report = Pruner(order, batch_size=2).prune(
            loaded.model, calibration, Wanda(), Uniform(), Unstructured(), 0.5, Runtime(weights=loaded.weights)
        )
        seconds = perf_counter() - start
    assert len(report.blocks) == len(blocks_of(loaded.model))
    return after_loading, peak_resident_bytes(), seconds


def main() -> None:
    """Print a line for each number of blocks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, nargs="+", default=[12, 24])
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--order", default="arrival", choices=["arrival", "block", "oneshot"])
    parser.add_argument("--folder", help="where the models are written, and removed at the end")
    options = parser.parse_args()
    print("blocks  weights   on disk   peak after loading  peak after pruning  seconds")
    for blocks in options.blocks:
        with tempfile.TemporaryDirectory(dir=options.folder) as parent:
            folder = Path(parent) / "model"
            folder.mkdir()
            write_model(folder, blocks)
            size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
            loading, pruning, seconds = in_fresh_process(prune, str(folder), options.tokens, options.order)
            print(
                f"{blocks:6}  {size / 2e9:5.2f} B  {size / GIB:4.2f} GiB  {loading / GIB:14.2f} GiB"
                f"  {pruning / GIB:14.2f} GiB  {seconds:7.0f}",
                flush=True,
            )


def _random(shape: torch.Size) -> torch.Tensor:
    values = torch.randn(shape, dtype=torch.bfloat16)
    return values if len(shape) == 1 else values * 0.02


if __name__ == "__main__":
    main()
