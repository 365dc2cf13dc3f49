"""Models that are damaged, each in its own way; every one of them is to end in one clear line and exit code 2."""

import json
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_model, save_untold_model, tiny_model, tiny_tokenizer
from typed import Typed, typed


Damage = Callable[[Path], object]

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 1342177280\n"


def put(name: str, content: str | bytes) -> Damage:
    """Write something else into a file."""

    def do(folder: Path) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return do


def remove(name: str) -> Damage:
    """Remove a file."""
    return lambda folder: (folder / name).unlink()


def cut(name: str, keep: float | int) -> Damage:
    """Leave a share of a file, or so many bytes of it; with a negative number, all but so many."""

    def do(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * keep) if isinstance(keep, float) else keep])

    return do


def replaced_by_a_folder(name: str) -> Damage:
    """Make a folder of that name."""

    def do(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return do


def broken_link(name: str) -> Damage:
    """Make a link that leads nowhere, as a copied cache of the hub has them."""

    def do(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to("../../blobs/4d7a214614ab2935c943f9e0ff69d22e")

    return do


def changed_json(name: str, change: Callable[[Any], object]) -> Damage:
    """Change what a JSON file holds, or have it hold what the change returns."""

    def do(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        found = change(content)
        (folder / name).write_text(json.dumps(content if found is None else found))

    return do


def configured(**values: Any) -> Damage:
    """Set values of config.json."""
    return changed_json(CONFIG, lambda config: config.update(values))


def changed_header(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Change the header of the safetensors file and leave its tensors where they are."""

    def do(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        found = change(header)
        new = json.dumps(header if found is None else found).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(new)) + new + content[8 + length :])

    return do


def changed_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    """Change tensors of the safetensors file."""

    def do(folder: Path) -> None:
        weights = {name: value.clone() for name, value in load_file(folder / WEIGHTS).items()}
        change(weights)
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})

    return do


def as_pickle(content: bytes | None = None, keep: float = 1.0) -> Damage:
    """Have the weights in pytorch_model.bin, damaged."""

    def do(folder: Path) -> None:
        torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
        (folder / WEIGHTS).unlink()
        whole = (folder / "pytorch_model.bin").read_bytes()
        (folder / "pytorch_model.bin").write_bytes(content if content is not None else whole[: int(len(whole) * keep)])

    return do


def _emptied(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _set(name: str, index: int, value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda weights: weights[name].view(-1).__setitem__(index, value)


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("model-*.safetensors"))


def _shard(number: int, change: Callable[[Path], object]) -> Damage:
    return lambda folder: change(_shards(folder)[number])


def _swap_shards(folder: Path) -> None:
    first, second, *_ = _shards(folder)
    content = first.read_bytes()
    shutil.copy(second, first)
    second.write_bytes(content)


def _lose_from_shard(path: Path) -> None:
    weights = load_file(path)
    weights.pop(min(weights))
    save_file(weights, path, metadata={"format": "pt"})


def _first_of_map(value: Any) -> Callable[[dict[str, Any]], None]:
    def change(index: dict[str, Any]) -> None:
        name = min(index["weight_map"])
        index["weight_map"][name] = value

    return change


def _larger_tokenizer(folder: Path) -> None:
    """Have letters of the text become tokens beyond the embedding."""
    tokenizer = json.loads((folder / TOKENIZER).read_text())
    vocabulary = tokenizer["model"]["vocab"]
    for letter in "eati":
        vocabulary[letter] += 300
    (folder / TOKENIZER).write_text(json.dumps(tokenizer))


def _added_tokens(folder: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["the", "na", "a "])
    tokenizer.save_pretrained(folder)


LFS = {f"{name} is a pointer of Git LFS": put(name, POINTER) for name in (WEIGHTS, CONFIG, TOKENIZER)}

SINGLE: dict[str, Damage] = {
    "no files": _emptied,
    "only a README": lambda folder: (_emptied(folder), put("README.md", "# A model")(folder)),
    "only an adapter": lambda folder: (
        _emptied(folder),
        put("adapter_config.json", '{"peft_type": "LORA", "base_model_name_or_path": "none/such"}')(folder),
        put("adapter_model.safetensors", b"")(folder),
    ),
    "only a GGUF file": lambda folder: (_emptied(folder), put("model.gguf", b"GGUF" + bytes(100))(folder)),
    **LFS,
    "weights: missing": remove(WEIGHTS),
    "weights: empty": put(WEIGHTS, b""),
    "weights: seven bytes": cut(WEIGHTS, 7),
    "weights: header cut": cut(WEIGHTS, 100),
    "weights: half": cut(WEIGHTS, 0.5),
    "weights: a byte too few": cut(WEIGHTS, -1),
    "weights: bytes too many": lambda folder: put(WEIGHTS, (folder / WEIGHTS).read_bytes() + bytes(64))(folder),
    "weights: nonsense": put(WEIGHTS, b"nonsense" * 1000),
    "weights: zeros": put(WEIGHTS, bytes(10_000)),
    "weights: an HTML page": put(WEIGHTS, "<html><body>404 Not Found</body></html>" * 20),
    "weights: huge header": lambda folder: put(WEIGHTS, struct.pack("<Q", 1 << 60) + b"{}")(folder),
    "weights: header no JSON": put(WEIGHTS, struct.pack("<Q", 8) + b"nonsense" + bytes(100)),
    "weights: header a list": changed_header(lambda _: []),
    "weights: unknown dtype": changed_header(lambda header: header["model.norm.weight"].update(dtype="F3")),
    "weights: offsets beyond the end": changed_header(
        lambda header: header["model.norm.weight"].update(data_offsets=[10**9, 10**9 + 64])
    ),
    "weights: offsets that overlap": changed_header(
        lambda header: header["model.norm.weight"].update(data_offsets=header["lm_head.weight"]["data_offsets"])
    ),
    "weights: shape and size differ": changed_header(lambda header: header["model.norm.weight"].update(shape=[3])),
    "weights: a negative shape": changed_header(lambda header: header["model.norm.weight"].update(shape=[-16])),
    "weights: a folder": replaced_by_a_folder(WEIGHTS),
    "weights: broken link": broken_link(WEIGHTS),
    "weights: no tensors": changed_weights(dict.clear),
    "weights: one missing": changed_weights(lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight")),
    "weights: another shape": changed_weights(
        lambda weights: weights.update({"model.layers.0.mlp.up_proj.weight": torch.ones(3, 3)})
    ),
    "weights: other names": changed_weights(
        lambda weights: [weights.update({f"other.{name}": weights.pop(name)}) for name in list(weights)]
    ),
    "weights: not a number": changed_weights(_set("model.layers.0.mlp.up_proj.weight", 5, float("nan"))),
    "weights: infinity": changed_weights(_set("model.layers.1.self_attn.q_proj.weight", 5, float("inf"))),
    "weights: all zero": changed_weights(lambda weights: [value.zero_() for value in weights.values()]),
    "pickle: nonsense": as_pickle(b"nonsense" * 100),
    "pickle: empty": as_pickle(b""),
    "pickle: half": as_pickle(keep=0.5),
    "pickle: code": as_pickle(b"cos\nsystem\n(S'true'\ntR."),
    "pickle: pointer": as_pickle(POINTER.encode()),
    "config: missing": remove(CONFIG),
    "config: empty": put(CONFIG, ""),
    "config: cut": cut(CONFIG, 0.5),
    "config: nonsense": put(CONFIG, b"\xff\xfe\x00nonsense"),
    "config: no UTF-8": put(CONFIG, b'{"model_type": "llama", "x": "\xe9"}'),
    "config: a list": put(CONFIG, "[]"),
    "config: null": put(CONFIG, "null"),
    "config: a number": put(CONFIG, "7"),
    "config: a text": put(CONFIG, '"llama"'),
    "config: a comma too many": lambda folder: put(CONFIG, (folder / CONFIG).read_text().replace("\n}", ",\n}"))(
        folder
    ),
    "config: a folder": replaced_by_a_folder(CONFIG),
    "config: broken link": broken_link(CONFIG),
    "config: no model_type": changed_json(CONFIG, lambda config: [config.pop("model_type"), None][1]),
    "config: nothing in it": put(CONFIG, "{}"),
    "config: unknown model_type": configured(model_type="lama"),
    "config: model_type a number": configured(model_type=3),
    "config: model_type null": configured(model_type=None),
    "config: another model_type": configured(model_type="bloom"),
    "config: a vision model": configured(model_type="vit"),
    "config: own code": configured(
        auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}, model_type="own"
    ),
    **{
        f"config: {key} {told}": configured(**{key: value})
        for key, values in {
            "hidden_size": {
                "a text": "many",
                "null": None,
                "zero": 0,
                "negative": -16,
                "odd": 17,
                "larger": 32,
                "2.5": 2.5,
            },
            "num_hidden_layers": {
                "a text": "two",
                "null": None,
                "zero": 0,
                "negative": -1,
                "a list": [2],
                "2.5": 2.5,
                "fewer than in the checkpoint": 1,
                "more than in the checkpoint": 3,
                "a billion": 10**9,
            },
            "num_attention_heads": {"a text": "4", "zero": 0, "three": 3, "null": None},
            "num_key_value_heads": {"three": 3, "zero": 0, "a text": "two"},
            "intermediate_size": {"negative": -24, "zero": 0, "a text": "wide", "larger": 48},
            "vocab_size": {"a text": "all", "smaller": 100, "larger": 300, "zero": 0},
            "max_position_embeddings": {"a text": "long", "shorter than a sequence": 12, "negative": -5},
            "hidden_act": {"unknown": "silly", "a number": 1, "null": None},
            "rms_norm_eps": {"a text": "tiny", "null": None},
            "rope_parameters": {
                "a text": "default",
                "unknown": {"rope_type": "spiral", "rope_theta": 1e4},
                "a list": [],
            },
            "dtype": {"unknown": "float7"},
            "head_dim": {"zero": 0, "a text": "eight", "another": 12},
        }.items()
        for told, value in values.items()
    },
    **{
        f"quantised: {told}": configured(quantization_config=settings)
        for told, settings in {
            "GPTQ": {"quant_method": "gptq", "bits": 4, "group_size": 128},
            "AWQ": {"quant_method": "awq", "bits": 4, "version": "gemm"},
            "bitsandbytes, 4 bits": {"quant_method": "bitsandbytes", "load_in_4bit": True},
            "bitsandbytes, 8 bits": {"quant_method": "bitsandbytes", "load_in_8bit": True},
            "FP8": {"quant_method": "fp8", "activation_scheme": "dynamic"},
            "compressed-tensors": {"quant_method": "compressed-tensors", "format": "int-quantized"},
            "HQQ": {"quant_method": "hqq"},
            "MXFP4": {"quant_method": "mxfp4"},
            "unknown": {"quant_method": "homemade"},
            "no method": {"bits": 4},
        }.items()
    },
    "quantised: a text": configured(quantization_config="4 bits"),
    "tokenizer: missing": lambda folder: [(folder / name).unlink() for name in (TOKENIZER, TOKENIZER_CONFIG)],
    "tokenizer: only its configuration": remove(TOKENIZER),
    "tokenizer: empty": put(TOKENIZER, ""),
    "tokenizer: cut": cut(TOKENIZER, 0.5),
    "tokenizer: nonsense": put(TOKENIZER, b"\x80\x00nonsense"),
    "tokenizer: a list": put(TOKENIZER, "[]"),
    "tokenizer: nothing in it": put(TOKENIZER, "{}"),
    "tokenizer: no model": changed_json(TOKENIZER, lambda content: [content.pop("model"), None][1]),
    "tokenizer: unknown model": changed_json(TOKENIZER, lambda content: content["model"].update(type="Magic")),
    "tokenizer: no vocabulary": changed_json(TOKENIZER, lambda content: [content["model"].pop("vocab"), None][1]),
    "tokenizer: vocabulary a list": changed_json(TOKENIZER, lambda content: content["model"].update(vocab=["a"])),
    "tokenizer: numbers that are texts": changed_json(
        TOKENIZER, lambda content: content["model"].update(vocab={key: "7" for key in content["model"]["vocab"]})
    ),
    "tokenizer: letters missing": changed_json(
        TOKENIZER, lambda content: content["model"].update(vocab={"<s>": 0, "</s>": 1, "<pad>": 2})
    ),
    "tokenizer: a folder": replaced_by_a_folder(TOKENIZER),
    "tokenizer: broken link": broken_link(TOKENIZER),
    "tokenizer: tokens beyond the embedding": _larger_tokenizer,
    "tokenizer: added tokens beyond the embedding": _added_tokens,
    "tokenizer configuration: empty": put(TOKENIZER_CONFIG, ""),
    "tokenizer configuration: cut": cut(TOKENIZER_CONFIG, 0.5),
    "tokenizer configuration: a list": put(TOKENIZER_CONFIG, "[]"),
    "tokenizer configuration: nonsense": put(TOKENIZER_CONFIG, b"\xff\xfe"),
    "tokenizer configuration: a number for a token": changed_json(
        TOKENIZER_CONFIG, lambda content: content.update(bos_token=3)
    ),
    "tokenizer configuration: a list for a class": changed_json(
        TOKENIZER_CONFIG, lambda content: content.update(tokenizer_class=["Fast"])
    ),
    "generation: cut": put("generation_config.json", '{"bos_token_id": 0,'),
    "generation: a list": put("generation_config.json", "[]"),
    "special tokens: cut": put("special_tokens_map.json", '{"bos_token":'),
    "added tokens: cut": put("added_tokens.json", '{"<x>": '),
}
"""What is done to a small Llama in one file."""

SHARDED: dict[str, Damage] = {
    "index: no weight_map": changed_json(INDEX, lambda index: [index.pop("weight_map"), None][1]),
    "index: weight_map a list": changed_json(INDEX, lambda index: index.update(weight_map=[])),
    "index: weight_map empty": changed_json(INDEX, lambda index: index.update(weight_map={})),
    "index: weight_map null": changed_json(INDEX, lambda index: index.update(weight_map=None)),
    "index: no metadata and no weight_map": put(INDEX, "{}"),
    "index: empty": put(INDEX, ""),
    "index: cut": cut(INDEX, 0.5),
    "index: a list": put(INDEX, "[]"),
    "index: null": put(INDEX, "null"),
    "index: nonsense": put(INDEX, b"\xff\x00"),
    "index: pointer": put(INDEX, POINTER),
    "index: a shard that is not there": changed_json(INDEX, _first_of_map("model-00009-of-00009.safetensors")),
    "index: a shard elsewhere": changed_json(INDEX, _first_of_map("../other.safetensors")),
    "index: a shard at an absolute path": changed_json(INDEX, _first_of_map("/etc/hostname")),
    "index: a number for a shard": changed_json(INDEX, _first_of_map(7)),
    "index: a tensor in the wrong shard": changed_json(
        INDEX, lambda index: _first_of_map(max(index["weight_map"].values()))(index)
    ),
    "index: missing": remove(INDEX),
    "shard: missing": _shard(1, Path.unlink),
    "shard: all missing": lambda folder: [path.unlink() for path in _shards(folder)],
    "shard: empty": _shard(1, lambda path: path.write_bytes(b"")),
    "shard: half": _shard(1, lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])),
    "shard: pointer": _shard(1, lambda path: path.write_text(POINTER)),
    "shard: nonsense": _shard(0, lambda path: path.write_bytes(b"nonsense" * 200)),
    "shard: two swapped": _swap_shards,
    "shard: a tensor missing": _shard(0, _lose_from_shard),
    "shard: a broken link": _shard(1, lambda path: (path.unlink(), path.symlink_to("../blobs/none"))),
}
"""What is done to the same model in several files."""

OTHERS: dict[str, Callable[[Path], Path]] = {
    "too few positions for calibration": lambda folder: _gpt2(folder, n_positions=12),
    "too few positions for evaluation": lambda folder: _gpt2(folder, n_positions=48),
    "blocks that are entered several times": lambda folder: save_untold_model("albert", folder, embedding_size=8),
    "two lists that are passed by turns": lambda folder: save_untold_model(
        "xlm", folder, emb_dim=16, n_layers=2, n_heads=4, n_words=259, pad_index=2
    ),
    "experts in another layout": lambda folder: save_untold_model(
        "gpt_oss", folder, num_key_value_heads=2, head_dim=8, num_local_experts=4, num_experts_per_tok=2
    ),
    "an expert without weights": lambda folder: _mixtral_without(folder, "1.block_sparse_moe.experts.2.w1"),
    "a vision model": lambda folder: _vision(folder),
    "a file": lambda folder: (folder.parent.mkdir(parents=True, exist_ok=True), folder.write_text("a model"), folder)[
        2
    ],
    "a folder that is not there": lambda folder: folder,
}
"""Other models, each made anew."""


def _gpt2(folder: Path, **settings: Any) -> Path:
    model = tiny_model("gpt2", **settings)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def _mixtral_without(folder: Path, name: str) -> Path:
    save_tiny_model("mixtral", folder)
    changed_weights(lambda weights: weights.pop(f"model.layers.{name}.weight"))(folder)
    return folder


def _file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a model")
    return path


def _vision(folder: Path) -> Path:
    from transformers import ViTConfig, ViTModel

    ViTModel(
        ViTConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4)
    ).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


WITHOUT_PERPLEXITY = ("blocks that are entered several times", "two lists that are passed by turns")
"""Models that have none, so that they would be refused for that."""


def damaged_models(place: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name and the folder of each damaged model, made in `place` when it is asked for."""
    whole, sharded = place / "whole", place / "sharded"
    save_tiny_model("llama", whole)
    tiny_model("llama").save_pretrained(sharded, max_shard_size="10KB")
    tiny_tokenizer().save_pretrained(sharded)
    for base, damages in ((whole, SINGLE), (sharded, SHARDED)):
        for name, damage in damages.items():
            folder = Path(shutil.copytree(base, place / "damaged" / name))
            damage(folder)
            yield name, folder
    for name, make in OTHERS.items():
        yield name, make(place / "others" / name)


def model_trials(place: Path) -> Iterator[tuple[str, Typed]]:
    """Yield for each damaged model what `python run.py` says of it."""
    for name, folder in damaged_models(place):
        evaluation = ["evaluation.sentences=2", "evaluation.window=64", "evaluation.stride=64"]
        yield (
            name,
            typed(
                "model=bloom",
                f"model.path={str(folder)!r}",
                "langs=[eng_Latn,swh_Latn]",
                "calibration.sequences=4",
                "calibration.length=16",
                "tracking=none",
                "artifacts=false",
                *(["evaluation=none"] if name in WITHOUT_PERPLEXITY else evaluation),
            ),
        )


def main() -> int:
    """Try all of them, say which of them end otherwise than in one clear line, and return how many those are."""
    with tempfile.TemporaryDirectory(prefix="damaged-") as place:
        tried = list(model_trials(Path(place)))
    wrong = [(name, outcome) for name, outcome in tried if not outcome.is_refusal]
    for name, outcome in wrong:
        print(f"{name}: exit code {outcome.code}, left {outcome.left}: {outcome.said[-500:]}")
    print(f"damaged models: {len(tried)} tried, {len(tried) - len(wrong)} ended in one clear error and left nothing")
    return len(wrong)


if __name__ == "__main__":
    sys.exit(main() > 0)
