"""What a pruner keeps for other runs, and finds of theirs."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor


class Found(Protocol):
    """What another run has kept."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Its tensors."""
        ...

    @property
    def facts(self) -> Any:
        """What of it is no tensor."""
        ...


class Shelf(Protocol):
    """The runs that share it have the same model, on the same kind of machine, with the same software."""

    def find(self, kind: str, key: Mapping[str, Any]) -> Found | None:
        """Return what was kept under a key that says what else it depends on."""
        ...

    def keep(self, kind: str, key: Mapping[str, Any], tensors: Mapping[str, Tensor], facts: Any = None) -> None:
        """Keep tensors, and facts that JSON can hold."""
        ...
