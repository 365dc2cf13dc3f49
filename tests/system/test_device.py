"""What is asked of an accelerator, as far as it can be seen without one."""

import torch

from mwanda.system import device


def test_operations_are_repeatable_while_they_are_asked_to_be() -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    with device.repeatable(torch.device("cuda")):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    with device.repeatable(torch.device("cpu")):
        assert not torch.are_deterministic_algorithms_enabled()
