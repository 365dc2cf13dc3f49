"""What pruning promises for every model family; `tests/models/test_families.py` has a subclass for each."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pruning_oracle as oracle
import pytest
import torch
from pruning_oracle import every_order
from tiny_models import BLOCKS, VOCABULARY, save_tiny_model, tiny_calibration, tiny_model, tiny_tokenizer
from torch import Tensor, nn
from transformers import PreTrainedModel

from mwanda.calibration import CalibrationSet
from mwanda.criteria.magnitude import Magnitude
from mwanda.criteria.mwanda import MWanda
from mwanda.criteria.wanda import Wanda
from mwanda.models import blocks_of
from mwanda.models.family import family_of
from mwanda.models.forward import forward
from mwanda.models.left_dense import left_alone
from mwanda.models.source import PretrainedModel
from mwanda.patterns.n_of_m import NOfM
from mwanda.patterns.unstructured import Unstructured
from mwanda.pruner import Pruner, PruningReport
from mwanda.pruner.engine import Order
from mwanda.schedules.cwl import CWL
from mwanda.schedules.uniform import Uniform
from mwanda.statistics import LanguageWeights


SPARSITY = 0.5
CALIBRATION = tiny_calibration(languages=3, sequences=(3, 2, 4))


class FamilyContract:
    """Inherit, name it `Test…`, and say where the family keeps what.

    Attributes:
        family: the `model_type`, a key of `tiny_models.SIZES`.
        adapter: the name of the `Family` that is to handle it.
        path: where the list of blocks is.
        linears: the linear layers of a block, in the order in which they are defined.
        spared: what else in a block has two or more dimensions and is not to be pruned, by its name in the block.
        expert_tokens: fewer tokens than these are too few to judge an expert by; the default of `Pruner`.
        dtype: float64 keeps rounding away from the comparison of masks; for models that cannot compute in it, float32.
    """

    family: ClassVar[str]
    adapter: ClassVar[str]
    path: ClassVar[str]
    linears: ClassVar[tuple[str, ...]]
    spared: ClassVar[tuple[str, ...]] = ()
    expert_tokens: ClassVar[int] = 32
    dtype: ClassVar[torch.dtype] = torch.float64

    @property
    def stacks(self) -> dict[str, list[tuple[str, ...]]]:
        """The matrices of each block, by their names in it, for each list of blocks by its path."""
        return {self.path: [self.linears] * BLOCKS}

    @property
    def blocks(self) -> list[str]:
        """The names of the blocks."""
        return [f"{path}.{index}" for path, blocks in self.stacks.items() for index in range(len(blocks))]

    @property
    def expected(self) -> list[list[str]]:
        """The names of the matrices of each block."""
        matrices = [names for blocks in self.stacks.values() for names in blocks]
        return [[f"{block}.{name}" for name in names] for block, names in zip(self.blocks, matrices, strict=True)]

    @property
    def sparsities(self) -> list[float]:
        """What is asked of each block."""
        return [SPARSITY] * len(self.expected)

    def planned(self, model: nn.Module) -> set[str]:
        """Return the names of the parameters that are pruned."""
        return {oracle.parameter_of(model, name) for names in self.expected for name in names}

    @pytest.fixture(scope="class")
    @classmethod
    def dense(cls) -> PreTrainedModel:
        return tiny_model(cls.family, dtype=cls.dtype)

    @pytest.fixture
    def model(self, dense: PreTrainedModel) -> PreTrainedModel:
        return copy.deepcopy(dense)

    @pytest.fixture(scope="class")
    @classmethod
    def pruned(cls, dense: PreTrainedModel) -> PreTrainedModel:
        model = copy.deepcopy(dense)
        prune_with_wanda(model, "arrival")
        return model

    def test_blocks_and_their_linears_are_found(self, dense: PreTrainedModel) -> None:
        blocks = blocks_of(dense)
        assert family_of(dense).name == self.adapter
        assert [block.name for block in blocks] == self.blocks
        assert [f"{block.stack}.{block.name.rpartition('.')[2]}" for block in blocks] == self.blocks
        assert [[matrix.name for matrix in block.matrices] for block in blocks] == self.expected
        assert [block.index for block in blocks] == list(range(len(blocks)))
        assert all(matrix.block == block.index for block in blocks for matrix in block.matrices)

    def test_the_plan_needs_no_weights(self, dense: PreTrainedModel) -> None:
        with torch.device("meta"):
            empty = type(dense)(dense.config)
        found = [(matrix.name, matrix.shape) for block in blocks_of(empty) for matrix in block.matrices]
        assert found == [(matrix.name, matrix.shape) for block in blocks_of(dense) for matrix in block.matrices]

    def test_no_weight_of_a_block_that_multiplies_tokens_is_missed(self, dense: PreTrainedModel) -> None:
        within = [
            (block, f"{block}.{name}", parameter)
            for block in self.blocks
            for name, parameter in dense.get_submodule(block).named_parameters()
        ]
        spared = {f"{block}.{name}" for block in self.blocks for name in self.spared}
        assert {name for _, name, parameter in within if parameter.dim() > 1} - spared == self.planned(dense)
        assert not spared & self.planned(dense)

    def test_what_is_spared_is_told_with_the_reason(self, dense: PreTrainedModel) -> None:
        reasons = left_alone(dense, blocks_of(dense))
        within = {name for name, _ in dense.named_parameters()}
        assert set(reasons) == {f"{block}.{name}" for block in self.blocks for name in self.spared} & within

    def test_embeddings_and_head_are_not_in_the_plan(self, dense: PreTrainedModel) -> None:
        outside = {id(dense.get_input_embeddings().weight), id(dense.get_output_embeddings().weight)}
        assert not outside & {id(matrix.tensor) for block in blocks_of(dense) for matrix in block.matrices}

    def test_weights_are_out_by_in(self, dense: PreTrainedModel) -> None:
        matrices = [matrix for block in blocks_of(dense) for matrix in block.matrices if matrix.expert is None]
        inputs = oracle.capture(dense, [matrix.name for matrix in matrices], CALIBRATION)
        for matrix in matrices:
            values = torch.cat(inputs[matrix.name])
            bias = 0 if matrix.module.bias is None else matrix.module.bias
            with torch.no_grad():
                torch.testing.assert_close(values @ matrix.weight.T + bias, matrix.module(values))
            assert matrix.shape == tuple(matrix.weight.shape)

    def test_writing_to_a_weight_writes_the_model(self, model: PreTrainedModel) -> None:
        for matrix in [matrix for block in blocks_of(model) for matrix in block.matrices]:
            matrix.weight.fill_(7)
            assert matrix.parameter_name == oracle.parameter_of(model, matrix.name)
            assert bool((oracle.weight_of(model, matrix.name) == 7).all())
        assert all(bool((model.get_parameter(name) == 7).all()) for name in self.planned(model))

    def test_the_forward_pass_is_the_model_s_own(self, dense: PreTrainedModel) -> None:
        names = [name for names in self.expected for name in names if not oracle.is_expert(dense, name)]
        wanted = oracle.capture(dense, names, CALIBRATION)
        seen: dict[str, Tensor] = {}
        hooks = [
            dense.get_submodule(name).register_forward_pre_hook(
                lambda _, args, name=name: seen.update({name: args[0].flatten(0, -2)})
            )
            for name in names
        ]
        with torch.no_grad():
            forward(dense, torch.cat(CALIBRATION.sequences))
        for hook in hooks:
            hook.remove()
        assert list(seen) == list(wanted)
        assert all(torch.equal(values, torch.cat(wanted[name])) for name, values in seen.items())

    def test_a_saved_model_loads_with_the_same_logits(self, tmp_path: Path) -> None:
        loaded = PretrainedModel(str(save_tiny_model(self.family, tmp_path)), device="cpu").load()
        text = "Ünïcödé 你好 नमस्ते"
        tokens = torch.tensor([tiny_tokenizer().encode(text, add_special_tokens=False)])
        assert loaded.tokenizer.encode(text, add_special_tokens=False) == tokens[0].tolist()
        saved, weights = tiny_model(self.family), loaded.model.state_dict()
        assert [name for name, value in saved.state_dict().items() if not value.equal(weights[name])] == []
        # Not to the bit: the file is mapped into memory, where weights lie at other boundaries than those of an
        # allocation, and products choose their order of summation by that.
        torch.testing.assert_close(logits(loaded.model, tokens), logits(saved, tokens))
        assert loaded.model.config.tie_word_embeddings == is_tied(loaded.model)
        vocabulary = loaded.model.config.get_text_config().vocab_size
        assert len(loaded.tokenizer) == len(tiny_tokenizer()) <= VOCABULARY == vocabulary

    @every_order
    def test_wanda_masks_equal_the_oracle(self, model: PreTrainedModel, dense: PreTrainedModel, order: Order) -> None:
        prune_with_wanda(model, order)
        self.assert_as_pruned_by_the_oracle(model, dense, order, self.sparsities)

    def test_mwanda_with_cwl_masks_equal_the_oracle(self, model: PreTrainedModel, dense: PreTrainedModel) -> None:
        sparsities = oracle.cwl_sparsities(dense, self.expected, CALIBRATION, SPARSITY, 0.1, self.expert_tokens)
        report = Pruner("arrival", batch_size=4).prune(
            model, CALIBRATION, MWanda(variance_weight=0.5), CWL(width=0.1, signal_fraction=1), Unstructured(), SPARSITY
        )
        assert report.sparsities == pytest.approx(sparsities, abs=1e-6)
        assert max(sparsities) - min(sparsities) == pytest.approx(0.2, abs=1e-6)
        self.assert_as_pruned_by_the_oracle(model, dense, "arrival", sparsities, oracle.mwanda)

    def test_two_of_four_masks_equal_the_oracle(self, model: PreTrainedModel, dense: PreTrainedModel) -> None:
        Pruner("block", batch_size=4).prune(model, CALIBRATION, Wanda(), Uniform(), NOfM(2, 4), SPARSITY)
        self.assert_as_pruned_by_the_oracle(model, dense, "block", self.sparsities, select=oracle.lowest_two_of_four)

    @every_order
    def test_magnitude_masks_equal_the_oracle(
        self, model: PreTrainedModel, dense: PreTrainedModel, order: Order
    ) -> None:
        Pruner(order).prune(model, CALIBRATION, Magnitude(), Uniform(), Unstructured(), SPARSITY)
        self.assert_as_pruned_by_the_oracle(
            model, dense, "oneshot", self.sparsities, oracle.magnitude, oracle.lowest_of_matrix
        )

    @every_order
    def test_masks_depend_neither_on_batch_size_nor_on_the_order_of_sequences(
        self, model: PreTrainedModel, dense: PreTrainedModel, order: Order
    ) -> None:
        prune_with_wanda(model, order, batch_size=4)
        other = copy.deepcopy(dense)
        prune_with_wanda(other, order, 1, reversed_set(CALIBRATION))
        assert masks(other) == masks(model)

    def test_only_planned_weights_change_and_only_to_zero(
        self, pruned: PreTrainedModel, dense: PreTrainedModel
    ) -> None:
        planned = self.planned(dense)
        for name, before in dense.state_dict().items():
            after = pruned.state_dict()[name]
            assert after.dtype == before.dtype
            kept = torch.ones_like(before, dtype=torch.bool) if name not in planned else after != 0
            assert torch.equal(after[kept], before[kept])
            assert bool(kept.all()) == (name not in planned)

    def test_tied_embeddings_stay_tied(self, pruned: PreTrainedModel, dense: PreTrainedModel) -> None:
        assert is_tied(pruned) == is_tied(dense) == dense.config.tie_word_embeddings

    def test_logits_stay_finite_and_change(self, pruned: PreTrainedModel, dense: PreTrainedModel) -> None:
        tokens = torch.cat(CALIBRATION.sequences)
        after = logits(pruned, tokens)
        assert bool(torch.isfinite(after).all())
        assert not torch.equal(after, logits(dense, tokens))

    @every_order
    def test_a_bfloat16_model_stays_one(self, order: Order) -> None:
        model = tiny_model(self.family, dtype=torch.bfloat16)
        prune_with_wanda(model, order)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
        assert bool(torch.isfinite(logits(model, CALIBRATION.sequences[0])).all())

    @every_order
    def test_no_hook_is_left(self, model: PreTrainedModel, order: Order) -> None:
        prune_with_wanda(model, order)
        assert not hooked(model)

    @every_order
    def test_no_hook_is_left_when_the_pass_raises(
        self, model: PreTrainedModel, order: Order, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        last = list(oracle.capture(model, self.expected[-1], CALIBRATION))[-1]
        owner = oracle.parameter_of(model, last).rpartition(".")[0]
        monkeypatch.setattr(model.get_submodule(owner), "forward", raiser(ArithmeticError("half-way")))
        with pytest.raises(ArithmeticError, match="half-way"):
            prune_with_wanda(model, order)
        assert not hooked(model)

    @every_order
    def test_unit_tokens_are_inputs_of_one_size(self, model: PreTrainedModel, order: Order) -> None:
        dense = copy.deepcopy(model)
        weighted = replace(CALIBRATION, weights=LanguageWeights(unit_tokens=True))
        settings = Pruner(order, 4, self.expert_tokens)
        settings.prune(model, weighted, Wanda(), Uniform(), Unstructured(), SPARSITY)
        count = len(self.expected)
        self.assert_as_pruned_by_the_oracle(model, dense, order, [SPARSITY] * count, oracle.wanda_of_unit_tokens)

    def assert_as_pruned_by_the_oracle(
        self,
        model: nn.Module,
        dense: nn.Module,
        order: oracle.Order,
        sparsities: list[float],
        score: oracle.Score = oracle.wanda,
        select: oracle.Select = oracle.lowest_of_rows,
    ) -> None:
        expected = copy.deepcopy(dense)
        oracle.prune(expected, self.expected, CALIBRATION, order, sparsities, score, select, self.expert_tokens)
        found, wanted = masks(model), masks(expected)
        assert [name for name in wanted if found[name] != wanted[name]] == []


def prune_with_wanda(
    model: nn.Module, order: Order, batch_size: int = 4, calibration: CalibrationSet = CALIBRATION
) -> PruningReport:
    """Prune half of the weights in place."""
    return Pruner(order, batch_size).prune(model, calibration, Wanda(), Uniform(), Unstructured(), SPARSITY)


def masks(model: nn.Module) -> dict[str, list[list[bool]]]:
    """Return where each matrix of the model is zero."""
    return {name: (value == 0).tolist() for name, value in model.state_dict().items() if value.dim() > 1}


def reversed_set(calibration: CalibrationSet) -> CalibrationSet:
    """Return the same sequences in the opposite order of languages and of sequences within them."""
    parts = tuple(part.flip(0) for part in calibration.sequences[::-1])
    return CalibrationSet(calibration.codes[::-1], parts, calibration.packing)


@torch.no_grad()
def logits(model: nn.Module, tokens: Tensor) -> Tensor:
    """Run the model with its head."""
    values: Tensor = oracle.run(model, tokens).logits
    return values


def is_tied(model: PreTrainedModel) -> bool:
    """Return whether embeddings and head are one tensor."""
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def hooked(model: nn.Module) -> list[str]:
    """Return the names of modules that have a hook."""
    return [name for name, module in model.named_modules() if module._forward_pre_hooks or module._forward_hooks]


def raiser(error: Exception) -> Callable[..., None]:
    """Return a function that raises `error` however it is called."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return fail
