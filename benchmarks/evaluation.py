"""Time of measuring perplexity, next to the bare forward pass with the LM head over the same tokens.

python benchmarks/evaluation.py
python benchmarks/evaluation.py --protocol sentence --languages 8 --rounds 7

Ours is all of `Perplexity.measure`: windows, batches, the trial of the LM head, losses, and intervals. The bare ways
pass the same padded batches of Gemma 3 270M (a vocabulary of 262,144) through the trunk and multiply all hidden states
by the head, and compute no loss. Everything runs in turn in one process; tables show medians with the lowest and
highest value, and go to `outputs/benchmarks/evaluation_PROTOCOL.md` and `.json`.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from measure import Row, Table, interleaved, machine, timed, write
from torch import Tensor
from workload import GEMMA, Workload

from mwanda.corpora.embedded import Embedded, codes
from mwanda.evaluation.perplexity import TOKENS_AT_ONCE, Perplexity, padded
from mwanda.kernels.vocabulary import VOCABULARY_CHUNK
from mwanda.languages import find
from mwanda.models.gemma import PackagedGemma


CLOCKS = {"wall": perf_counter, "processor": process_time}
OUTPUT = Path(__file__).resolve().parents[1] / "outputs" / "benchmarks"
BARE, CHUNKED, OURS = "bare: trunk, hidden @ head.T", "bare, the product in chunks", "ours: Perplexity.measure"


@torch.no_grad()
def bare(model: Any, batches: Sequence[Tensor]) -> None:
    """Pass batches through the trunk and multiply by the head, all logits of a batch at once."""
    head = model.get_output_embeddings().weight
    for tokens in batches:
        states = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
        states.flatten(0, 1) @ head.T


@torch.no_grad()
def chunked(model: Any, batches: Sequence[Tensor]) -> None:
    """The same, the product a chunk of the vocabulary at a time in memory that is used again."""
    head = model.get_output_embeddings().weight
    for tokens in batches:
        states = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state.flatten(0, 1)
        memory = states.new_empty(len(states), VOCABULARY_CHUNK)
        for rows in head.split(VOCABULARY_CHUNK):
            torch.mm(states, rows.T, out=memory[:, : len(rows)])


def table(
    model: Any,
    tokenizer: Any,
    settings: Perplexity,
    languages: int,
    rounds: int,
    clock: Callable[[], float] = CLOCKS["wall"],
) -> Table:
    """Return the times of the three ways on the first languages of the embedded corpus."""
    chosen = find(sorted(codes())[:languages])
    sentences = {one.code: list(Embedded().sentences(one, "evaluation")) for one in chosen}
    texts = settings.texts(tokenizer, sentences)
    cut = settings.batches(tokenizer, texts)
    batches = [padded(batch) for batch in cut]
    scored = sum(window.scored for batch in cut for _, window in batch)
    passed = sum(tokens.numel() for tokens in batches)
    ways: dict[str, Callable[[], float]] = {
        BARE: timed(lambda: bare(model, batches), clock),
        CHUNKED: timed(lambda: chunked(model, batches), clock),
        OURS: timed(lambda: settings.measure(model, tokenizer, texts), clock),
    }
    seconds = interleaved(ways, rounds)
    title = f"{settings.definition.name}, {scored} scored tokens of {passed} that pass, {len(batches)} batches"
    rows = [
        Row(f"{way} ({scored / median(taken):.0f} tokens a second)", taken, seconds[BARE])
        for way, taken in seconds.items()
    ]
    return Table(title, BARE, rows=rows)


def main() -> None:
    """Measure, print and write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--languages", type=int, default=4, help="of the embedded corpus")
    parser.add_argument("--protocol", choices=["document", "sentence"], default="document")
    parser.add_argument("--batch-tokens", type=int, default=TOKENS_AT_ONCE, help="tokens in a forward pass")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds, after one to warm up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    parser.add_argument(
        "--clock", choices=list(CLOCKS), default="wall", help="processor: what others run disturbs less"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder of the table")
    options = parser.parse_args()
    metadata = {**machine(options.threads), "model": GEMMA, "rounds": options.rounds, "clock": options.clock}
    settings = Perplexity(protocol=options.protocol, batch_tokens=options.batch_tokens)
    model = Workload(GEMMA, threads=options.threads).build().model
    tokenizer = PackagedGemma().load_tokenizer()
    name = f"evaluation_{options.protocol}"
    clock = CLOCKS[options.clock]
    found = table(model, tokenizer, settings, options.languages, options.rounds, clock)
    write(options.output, name, metadata, [found])
    print((options.output / f"{name}.md").read_text(), flush=True)


if __name__ == "__main__":
    main()
