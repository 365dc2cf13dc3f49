"""Statistics taken from the inputs of linear layers."""

from typing import Any

import pytest
import torch
from pruning_oracle import capture
from tiny_models import tiny_calibration, tiny_model
from torch import Tensor
from transformers import PreTrainedModel

from mwanda.errors import CalibrationError
from mwanda.models import Matrix, blocks_of
from mwanda.pruner.observe import Observer, by_sequence
from mwanda.statistics import SequenceSums


CALIBRATION = tiny_calibration(languages=3, sequences=(3, 1, 2), length=5)


@pytest.fixture
def model() -> PreTrainedModel:
    return tiny_model("llama", dtype=torch.float64)


@pytest.fixture
def matrices(model: PreTrainedModel) -> list[Matrix]:
    return [matrix for block in blocks_of(model) for matrix in block.matrices]


@torch.no_grad()
def watch(model: PreTrainedModel, observer: Observer, batch_size: int = 2) -> None:
    """Show the observer the whole calibration set."""
    with observer.watching():
        for batch in CALIBRATION.batches(batch_size):
            with observer.reading(batch):
                model(input_ids=batch.tokens, use_cache=False)


def test_statistics_are_those_of_the_inputs_of_each_language(model: PreTrainedModel, matrices: list[Matrix]) -> None:
    observer = Observer(matrices, languages=3)
    watch(model, observer)
    inputs = capture(model, [matrix.name for matrix in matrices], CALIBRATION)
    for matrix in matrices:
        seen = observer.statistics[matrix.name]
        for language, values in enumerate(inputs[matrix.name]):
            torch.testing.assert_close(seen.sum_squares[language], values.square().sum(dim=0), rtol=1e-5, atol=0)
            assert seen.positive[language].tolist() == (values > 0).sum(dim=0).tolist()
            assert seen.nonzero[language].tolist() == (values != 0).sum(dim=0).tolist()
            assert seen.tokens[language] == values.shape[0] == CALIBRATION.sequences[language].numel()


def test_an_input_that_matrices_share_is_reduced_once(
    model: PreTrainedModel, matrices: list[Matrix], monkeypatch: pytest.MonkeyPatch
) -> None:
    reduced = []
    plain = SequenceSums.of

    def counted(inputs: Tensor, *others: Any) -> SequenceSums:
        reduced.append(inputs)
        return plain(inputs, *others)

    monkeypatch.setattr(SequenceSums, "of", counted)
    watch(model, Observer(matrices, languages=3), batch_size=CALIBRATION.count)
    assert len(matrices) == 14
    assert len(reduced) == 8  # per block: query, key and value; output; gate and up; down


def test_nothing_is_seen_outside_a_reading(matrices: list[Matrix]) -> None:
    observer, (batch, *_) = Observer(matrices[:1], languages=3), CALIBRATION.batches(2)
    inputs = torch.ones(2, 5, 16, dtype=torch.float64)
    with observer.watching():
        matrices[0].module(inputs)
        with observer.reading(batch):
            matrices[0].module(inputs)
        matrices[0].module(inputs)
    assert observer.statistics[matrices[0].name].tokens.tolist() == [2 * 5, 0, 0]


def test_hooks_go_when_the_watch_ends_in_an_error(matrices: list[Matrix]) -> None:
    observer = Observer(matrices, languages=3)
    with pytest.raises(ZeroDivisionError), observer.watching():
        assert all(matrix.module._forward_pre_hooks for matrix in matrices)
        raise ZeroDivisionError
    assert not any(matrix.module._forward_pre_hooks for matrix in matrices)


def test_flattened_inputs_become_sequences_again() -> None:
    inputs = torch.arange(24.0).reshape(2, 3, 4)
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    assert torch.equal(by_sequence(inputs.reshape(6, 4), tokens), inputs)
    assert torch.equal(by_sequence(inputs, tokens), inputs)


@pytest.mark.parametrize("shape", [(5, 4), (2, 4, 4), (2, 1, 4)])
def test_inputs_that_are_not_one_vector_per_token_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(CalibrationError, match=r"\(2, 3\)"):
        by_sequence(torch.zeros(shape), torch.zeros(2, 3, dtype=torch.int64))
