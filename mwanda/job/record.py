"""The types of results.json, each key with its unit, its meaning, and when it is absent.

docs/results.md is made from them: `python -m mwanda.job.document > docs/results.md`.
"""

from typing import Annotated, Any, NotRequired, TypedDict

from mwanda.job.record_inside import CODE, DESTROYED, Inside
from mwanda.job.typed import Key, entries


ENDED = "the run ended before"
INTERVAL = "infinite, or one sentence allows no interval"
OLDER = "runs of versions that did not know it"
BY_BLOCK = "`schedule.level=block`"
NO_GIT = "no git checkout"
NO_PERPLEXITY = "`evaluation` measures no perplexity"
NO_TASKS = "`evaluation` runs no tasks"
NOT_TIMED = "taken from an earlier run or attempt, or not measured"


class Failure(TypedDict):
    """Why a run failed."""

    type: Annotated[str, Key("class of the exception")]
    message: Annotated[str, Key("what it said")]


class Environment(TypedDict):
    """What numbers may depend on besides the configuration."""

    mwanda: Annotated[str, Key("version of this project")]
    python: Annotated[str, Key("version")]
    torch: Annotated[str | None, Key("version", null="not installed")]
    transformers: Annotated[str | None, Key("version", null="not installed")]
    lm_eval: Annotated[str | None, Key("version", null="not installed")]
    git_commit: Annotated[str | None, Key("commit of this project's code", null=NO_GIT)]
    git_dirty: Annotated[bool | None, Key("whether files differed from the commit", null=NO_GIT)]
    git_difference: Annotated[str | None, Key("digest of `git diff`, which is in git.diff", null="nothing differs")]
    device: Annotated[str, Key("`cpu`, or the name of the GPU")]
    arithmetic: Annotated[str, Key("vector instructions and threads, on which the last bit of a sum depends")]
    packages: Annotated[dict[str, str], Key("version of every installed package", by="package")]
    hostname_hash: Annotated[str, Key("digest of the machine's name")]


_Class = TypedDict("_Class", {"class": Annotated[str, Key("class of `transformers`")]})


class LeftDense(TypedDict):
    """A part of the model that is not pruned."""

    what: Annotated[str, Key("what it is, and why")]
    weights: Annotated[int, Key("how much", "weights")]


class Model(_Class):
    """The model."""

    id: Annotated[str, Key("hub id or folder")]
    revision: Annotated[str | None, Key("commit on the hub", null="not from the hub")]
    parameters: Annotated[int, Key("parameters, shared ones once", "parameters")]
    prunable_parameters: Annotated[int, Key("weights of the blocks' linear layers", "weights")]
    zeros_before: Annotated[int, Key("of these, zero before pruning", "weights")]
    left_dense: NotRequired[Annotated[list[LeftDense], Key("all that is not pruned", absent=OLDER)]]


class Languages(TypedDict):
    """The languages of the run."""

    set: Annotated[
        str | None, Key("name of the set that was asked for", null="not known, as in a run of mwanda.reproduce")
    ]
    codes: Annotated[list[str], Key("FLORES+ codes that it came to")]


class Criterion(TypedDict):
    """The score by which weights were pruned."""

    name: Annotated[str, Key("choice of the group `criterion`")]
    settings: Annotated[dict[str, Any], Key("its section of the configuration", by="setting")]


class Solver(TypedDict):
    """What followed the score: a plain cut, or a search for a better mask or better weights."""

    name: Annotated[str, Key("choice of the group `solver`; of `sparsegpt` its own")]
    settings: Annotated[dict[str, Any], Key("its section of the configuration", by="setting")]


class Block(TypedDict):
    """Sparsity of one block."""

    layer: Annotated[int, Key("number of the block, from 0")]
    target: Annotated[float, Key("what the schedule gave it", "share of the block's weights")]
    achieved: Annotated[float, Key("zeros that were counted", "share of the block's weights")]


class Matrix(TypedDict):
    """What was done to one weight matrix."""

    name: Annotated[str, Key("name of the module")]
    shape: Annotated[list[int], Key("outputs, inputs")]
    zeros: Annotated[int, Key("zeros that were counted after pruning", "weights")]
    zeros_before: Annotated[int, Key("zeros before it", "weights")]
    mask: Annotated[str, Key("digest of shape and mask")]
    target: NotRequired[Annotated[float, Key("what the schedule gave it", "share of its weights", absent=BY_BLOCK)]]


class Sparsity(TypedDict):
    """What was pruned."""

    target: Annotated[float, Key("what was asked for", "share of the prunable weights")]
    achieved: Annotated[float, Key("zeros that were counted", "share of the prunable weights")]
    pattern: Annotated[str, Key("`unstructured`, or N:M as `2of4`")]
    masks: Annotated[str, Key("digest of all masks: runs with the same one pruned the same weights")]
    fuller_cells: NotRequired[
        Annotated[int, Key("N:M cells that held more zeros than it removes, and keep them", "cells", absent=OLDER)]
    ]
    per_layer: Annotated[list[Block], Key("every block")]
    per_matrix: Annotated[list[Matrix], Key("every matrix, in the order of the blocks")]


class Overlap(TypedDict):
    """Calibration lines that evaluation text holds as well."""

    drop: Annotated[bool, Key("whether they were left out; a run is refused where they are not, and there are any")]
    dropped: Annotated[dict[str, int], Key("how many were, of languages that had any", "lines", by=CODE)]


class Calibration(TypedDict):
    """The text that calibrated the pruning."""

    corpus: Annotated[str, Key("choice of the group `corpus`")]
    sequences: Annotated[int, Key("sequences in all", "sequences")]
    length: Annotated[int, Key("length of each", "tokens")]
    tokens: Annotated[int, Key("tokens in all", "tokens")]
    tokens_per_language: Annotated[dict[str, int], Key("tokens of each language that gave text", "tokens", by=CODE)]
    packing: Annotated[str, Key("how sentences became sequences")]
    sampling: Annotated[str, Key("`calibration.sampling`")]
    mix: Annotated[str | None, Key("name of the model's training mix", null="sampling does not use one")]
    order: Annotated[str, Key("`pruner.order`: `arrival`, `block` or `oneshot`")]
    fingerprint: Annotated[str, Key("digest of languages and tokens")]
    weights: NotRequired[
        Annotated[
            str | dict[str, float], Key("weight in sums over languages, `uniform` or `balanced`", absent=OLDER, by=CODE)
        ]
    ]
    unit_tokens: NotRequired[Annotated[bool, Key("whether inputs of all tokens counted the same", absent=OLDER)]]
    moment_share: NotRequired[
        Annotated[float, Key("share of the tokens from which correlations between inputs come", absent=OLDER)]
    ]
    overlap: NotRequired[Annotated[Overlap, Key("lines that evaluation text holds", absent=OLDER)]]


class Schedule(TypedDict):
    """How sparsity was divided over blocks."""

    name: Annotated[str, Key("choice of the group `schedule`")]
    signal: Annotated[list[list[float]], Key("signals of each block, high = keep more; `[]` where none is needed")]
    level: NotRequired[Annotated[str, Key("`matrix`: each matrix has a sparsity of its own", absent=BY_BLOCK)]]


class ProtocolSettings(TypedDict):
    """What the protocol's hash is made of."""

    window: Annotated[int, Key("the most that a token is predicted from", "tokens")]
    stride: Annotated[int, Key("what each window scores", "tokens")]
    start_token: Annotated[bool | str, Key("`true`, `first` or `false`: which windows the start token leads")]
    join: Annotated[str, Key("what follows every sentence")]
    sentences: Annotated[int | None, Key("the first sentences that are taken", "sentences", null="all of them")]
    loss: Annotated[str, Key("precision of the log-probabilities")]
    split: Annotated[str, Key("side of the corpus")]
    name: Annotated[str, Key("level and version")]


class Protocol(TypedDict):
    """How perplexity was measured; perplexities under different hashes are not comparable."""

    name: Annotated[str, Key("level and version, as `document/2`")]
    hash: Annotated[str, Key("digest of the settings")]
    settings: Annotated[ProtocolSettings, Key("see there")]
    corpus: Annotated[str, Key("choice of the group `corpus` that was read")]


class LanguageLoss(TypedDict):
    """What one model made of one language's text; intervals are 95 % percentile bootstraps over its sentences."""

    perplexity: Annotated[float | None, Key("`exp` of the mean loss over all scored tokens", null=DESTROYED)]
    bits_per_byte: Annotated[float | None, Key("loss over UTF-8 bytes", "bits per byte", null=DESTROYED)]
    tokens: Annotated[int, Key("scored tokens", "tokens")]
    bytes: Annotated[int, Key("text that they stand for", "UTF-8 bytes")]
    low: Annotated[float | None, Key("lower end of the interval of the perplexity", null=INTERVAL)]
    high: Annotated[float | None, Key("its upper end", null=INTERVAL)]
    bits_per_character: Annotated[float | None, Key("loss over characters", "bits per code point", null=DESTROYED)]
    characters: Annotated[int, Key("text that the tokens stand for", "Unicode code points")]
    bits_per_byte_low: Annotated[float | None, Key("lower end of the interval", "bits per byte", null=INTERVAL)]
    bits_per_byte_high: Annotated[float | None, Key("its upper end", "bits per byte", null=INTERVAL)]
    bits_per_character_low: Annotated[float | None, Key("lower end", "bits per code point", null=INTERVAL)]
    bits_per_character_high: Annotated[float | None, Key("its upper end", "bits per code point", null=INTERVAL)]


class LanguageChange(TypedDict):
    """One language, dense against pruned, on the same sentences."""

    log_ratio: Annotated[float | None, Key("logarithm of pruned over dense perplexity", "nats", null=DESTROYED)]
    low: Annotated[float | None, Key("lower end of its 95 % interval, sentences in pairs", "nats", null=INTERVAL)]
    high: Annotated[float | None, Key("its upper end", "nats", null=INTERVAL)]
    p: Annotated[float, Key("of Wilcoxon's signed-rank test on the sentences' losses, two-sided")]
    p_holm: Annotated[float, Key("the same, corrected over the languages of the run (Holm)")]
    significant: Annotated[bool, Key("whether `p_holm` is below 0.05 and the interval leaves out 0")]
    units: Annotated[int, Key("what was compared", "sentences")]
    hurt: NotRequired[Annotated[bool, Key("whether it is significantly worse, or lost", absent=OLDER)]]
    lost: NotRequired[Annotated[bool, Key("whether the pruned loss is infinite, and the dense one not", absent=OLDER)]]


class Aggregate(TypedDict):
    """What perplexities of one model come to over languages."""

    geometric_mean: Annotated[float | None, Key("geometric mean of the perplexities", null=DESTROYED)]
    mean: Annotated[float | None, Key("plain mean, ruled by the worst languages", null=DESTROYED)]
    worst: Annotated[float | None, Key("highest perplexity", null=DESTROYED)]
    worst_language: Annotated[str, Key("whose")]
    mean_bits_per_byte: Annotated[float | None, Key("plain mean", "bits per byte", null=DESTROYED)]
    by_family: Annotated[dict[str, float | None], Key("geometric mean", by="language family")]
    by_script: Annotated[dict[str, float | None], Key("geometric mean", by="script (ISO 15924)")]
    by_resource_level: Annotated[dict[str, float | None], Key("geometric mean", by="`high`, `mid`, `low` or `unknown`")]


class GroupChange(TypedDict):
    """Dense against pruned, over a group of languages."""

    languages: Annotated[int, Key("how many", "languages")]
    ratio: Annotated[float | None, Key("geometric mean of pruned over dense perplexity", null=DESTROYED)]
    low: Annotated[float | None, Key("lower end of its 95 % interval over sentences", null=INTERVAL)]
    high: Annotated[float | None, Key("its upper end", null=INTERVAL)]
    share_hurt: Annotated[float, Key("languages that are significantly worse, or lost", "share of the languages")]
    share_helped: Annotated[float, Key("languages that are significantly better", "share of the languages")]


class Spread(TypedDict):
    """How far apart the worst-hit and the best-hit language lie."""

    log_ratio: Annotated[float | None, Key("difference of their log-ratios", "nats", null=DESTROYED)]
    low: Annotated[float | None, Key("lower end of the interval, for these two languages", "nats", null=INTERVAL)]
    high: Annotated[float | None, Key("its upper end", "nats", null=INTERVAL)]


class Change(GroupChange):
    """Dense against pruned, over all languages and groups of them."""

    worst_language: Annotated[str, Key("the language that lost most")]
    worst_ratio: Annotated[float | None, Key("its ratio", null=DESTROYED)]
    best_language: Annotated[str, Key("the language that lost least")]
    best_ratio: Annotated[float | None, Key("its ratio", null=DESTROYED)]
    spread: Annotated[Spread, Key("between these two")]
    by_family: Annotated[dict[str, GroupChange], Key("every family", by="language family")]
    by_script: Annotated[dict[str, GroupChange], Key("every script", by="script (ISO 15924)")]
    by_resource_level: Annotated[dict[str, GroupChange], Key("every level", by="`high`, `mid`, `low` or `unknown`")]
    by_calibration: Annotated[
        dict[str, GroupChange], Key("whether their text calibrated the pruning", by="`seen` or `unseen`")
    ]


class Aggregates(TypedDict):
    """What perplexities and changes come to over languages."""

    dense: Annotated[Aggregate, Key("before pruning")]
    pruned: Annotated[Aggregate, Key("after it")]
    paired: Annotated[Change, Key("the one against the other")]


class Perplexity(TypedDict, total=False):
    """Perplexity of every language, and what it comes to."""

    protocol: Annotated[Protocol, Key("how it was measured")]
    dense: Annotated[dict[str, LanguageLoss], Key("before pruning", by=CODE)]
    pruned: Annotated[dict[str, LanguageLoss], Key("after it", by=CODE)]
    paired: Annotated[dict[str, LanguageChange], Key("the one against the other", by=CODE)]
    aggregate: Annotated[Aggregates, Key("over languages")]
    overflowed: NotRequired[Annotated[list[str], Key("languages whose pruned loss is infinite (codes)", absent=OLDER)]]


class About(TypedDict):
    """What a task is."""

    suite: Annotated[str, Key("suite that it belongs to, or its own name")]
    language: Annotated[str | None, Key("FLORES+ code", null="it has none that is known")]
    documents: Annotated[int, Key("documents that were scored", "documents")]
    few_shot: Annotated[int, Key("examples before each question, besides those that its prompt has", "examples")]
    version: Annotated[str, Key("of the task")]
    chance: Annotated[float | None, Key("score of guessing", null="not known")]


Scores = dict[str, dict[str, float | None]]
"""Metrics and their standard errors (`METRIC_stderr`), by task and metric."""


class Tasks(TypedDict, total=False):
    """Scores of tasks; null where one document allows no standard error."""

    dense: Annotated[Scores, Key("before pruning", by="task, then metric and `METRIC_stderr`")]
    pruned: Annotated[Scores, Key("after it", by="task, then metric and `METRIC_stderr`")]
    difference: Annotated[Scores, Key("pruned minus dense, paired over documents", by="task, then as above")]
    about: Annotated[dict[str, About], Key("what each task is", by="task")]


class Fingerprints(TypedDict):
    """Digests of what went in."""

    model: Annotated[str, Key("of the model: commit or content of its files")]
    calibration_text: Annotated[str, Key("of the calibration sentences")]
    evaluation_text: Annotated[str, Key("of the evaluation sentences")]
    blocks: Annotated[str, Key("of the calibration tokens")]


class Throughput(TypedDict):
    """How fast perplexity was measured."""

    tokens: Annotated[int, Key("scored tokens", "tokens")]
    seconds: Annotated[float, Key("by the clock", "seconds")]
    tokens_per_second: Annotated[float, Key("the one over the other", "tokens per second")]


class Evaluation(TypedDict):
    """How fast the two models were measured."""

    dense: NotRequired[Annotated[Throughput, Key("before pruning", absent=NOT_TIMED)]]
    pruned: NotRequired[Annotated[Throughput, Key("after it", absent=NOT_TIMED)]]


class Memory(TypedDict):
    """The most memory that was held."""

    peak_rss_bytes: Annotated[int, Key("by this process", "bytes")]
    peak_device_bytes: Annotated[
        int, Key("by tensors on the GPUs of the process, each at its peak; 0 on the CPU", "bytes")
    ]


class Artifact(TypedDict):
    """Something that runs share."""

    kind: Annotated[str, Key("what it is")]
    key: Annotated[str, Key("digest of all that determines it")]


class Artifacts(TypedDict):
    """What was taken from other runs, and kept for them."""

    reused: Annotated[list[Artifact], Key("taken from the cache")]
    made: Annotated[list[Artifact], Key("kept in it")]


class Frame(TypedDict):
    """What results.json begins with, whatever became of the run."""

    schema: Annotated[str, Key("`mwanda.results/1`; the number changes when a key changes its meaning or goes")]
    status: Annotated[str, Key("`complete` or `failed`")]
    run_id: Annotated[str, Key("what a tracker knows the run by")]
    group: Annotated[str | None, Key("the sweep that it belongs to", null="it is a run of its own")]
    tags: Annotated[list[str], Key("choices of model, criterion, solver, schedule and pattern, for a tracker")]
    config_hash: Annotated[str, Key("digest of all of the configuration that can change a number")]
    config_hash_without_seed: Annotated[str, Key("the same without seeds: runs with the same one are repetitions")]
    seed: Annotated[int, Key("`seed`")]
    started: Annotated[str, Key("when this attempt began", "ISO 8601, UTC")]
    finished: Annotated[str, Key("when this file was written", "ISO 8601, UTC")]
    timing: Annotated[dict[str, float], Key("time of each stage, and `total`", "seconds", by="stage")]
    error: NotRequired[Annotated[Failure, Key("why the run failed", absent="it did not")]]


class Sections(TypedDict):
    """What is added once it is known; in the record of a failed run, what was known by then."""

    environment: NotRequired[Annotated[Environment, Key("machine and software", absent=ENDED)]]
    model: NotRequired[Annotated[Model, Key("the model", absent=ENDED, outcome=True)]]
    languages: NotRequired[Annotated[Languages, Key("the languages", absent=ENDED)]]
    criterion: NotRequired[Annotated[Criterion, Key("the criterion", absent=ENDED, outcome=True)]]
    solver: NotRequired[Annotated[Solver, Key("the solver", absent=f"{ENDED}, or {OLDER}", outcome=True)]]
    sparsity: NotRequired[Annotated[Sparsity, Key("what was pruned", absent=ENDED, outcome=True)]]
    calibration: NotRequired[Annotated[Calibration, Key("calibration text", absent=ENDED, outcome=True)]]
    schedule: NotRequired[Annotated[Schedule, Key("the schedule", absent=ENDED, outcome=True)]]
    perplexity: NotRequired[Annotated[Perplexity, Key("perplexity", absent=ENDED, empty=NO_PERPLEXITY, outcome=True)]]
    tasks: NotRequired[Annotated[Tasks, Key("scores of tasks", absent=ENDED, empty=NO_TASKS, outcome=True)]]
    fingerprints: NotRequired[Annotated[Fingerprints, Key("what went in", absent=ENDED, outcome=True)]]
    inside: NotRequired[
        Annotated[Inside, Key("what pruning does inside the model", absent="`inside=none`", outcome=True)]
    ]
    evaluation: NotRequired[Annotated[Evaluation, Key("speed of the evaluation", absent=ENDED)]]
    export: NotRequired[Annotated[str, Key("file or folder of the pruned model", absent="`export=none`")]]
    memory: NotRequired[Annotated[Memory, Key("memory", absent=ENDED)]]
    artifacts: NotRequired[Annotated[Artifacts, Key("what runs share", absent=ENDED)]]


class Results(Frame, Sections):
    """The contents of results.json."""


OUTCOME = tuple(each.name for each in entries(Results) if each.key.outcome)
"""The sections that say what came out; the others say where, when and how fast, and differ when a run is repeated."""
