"""The packaged Gemma: verified, converted once, made again when damaged. A tiny model stands in for the package."""

import hashlib
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from tiny_models import save_tiny_model

from mwanda.errors import ModelError
from mwanda.models import gemma
from mwanda.models.gemma import CHECKSUM_FILE, PackagedGemma, converted_folder


CONTENT = b"quantised weights"


class Package(ModuleType):
    """Assembles a file, as the real package does."""

    MODEL_NAME = "model.gguf"

    def __init__(self) -> None:
        super().__init__(gemma.PACKAGE)
        self.EXPECTED_SHA256 = hashlib.sha256(CONTENT).hexdigest()
        self.content = CONTENT

    def assemble(self, target: Path) -> str:
        """Write the file."""
        target.write_bytes(self.content)
        return str(target)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Package:
    package = Package()
    monkeypatch.setitem(sys.modules, gemma.PACKAGE, package)
    monkeypatch.setenv("MWANDA_CACHE", str(tmp_path / "cache"))
    return package


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replace the conversion by that of a tiny model, and list what was converted."""
    made: list[Path] = []

    def convert(assembled: Path, folder: Path) -> None:
        assert assembled.read_bytes() == CONTENT
        made.append(save_tiny_model("gemma3_text", folder))

    monkeypatch.setattr(gemma, "dequantise", convert)
    return made


def test_it_is_converted_once_and_loaded_from_the_cache(package: Package, conversions: list[Path]) -> None:
    first, second = PackagedGemma(device="cpu").load(), PackagedGemma(device="cpu").load()
    assert len(conversions) == 1
    assert first.model.config.model_type == second.model.config.model_type == "gemma3_text"
    assert first.id == "gemma-3-270m-q4_k_m"
    assert first.revision == f"sha256:{package.EXPECTED_SHA256}"


def test_only_the_finished_folder_stays_in_the_cache(package: Package, conversions: list[Path]) -> None:
    folder = converted_folder()
    assert [each.name for each in folder.parent.iterdir()] == [folder.name]
    assert package.EXPECTED_SHA256.startswith(folder.name.removeprefix("gemma3-270m-"))


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("damaged", ["model.safetensors", CHECKSUM_FILE])
@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"cut"), lambda path: path.unlink()])
def test_a_damaged_copy_is_made_again(
    conversions: list[Path], damaged: str, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    damage(converted_folder() / damaged)
    with caplog.at_level(logging.WARNING):
        PackagedGemma(device="cpu").load()
    assert len(conversions) == 2
    assert "damaged" in caplog.text


def test_a_file_with_another_checksum_is_refused(package: Package, conversions: list[Path]) -> None:
    package.content = b"something else"
    with pytest.raises(ModelError, match="checksum"):
        converted_folder()
    assert conversions == []
    assert list(Path(os.environ["MWANDA_CACHE"]).iterdir()) == []


def test_a_failed_conversion_leaves_nothing_behind(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(assembled: Path, folder: Path) -> None:
        folder.mkdir()
        raise OSError("disk full")

    monkeypatch.setattr(gemma, "dequantise", fail)
    with pytest.raises(OSError, match="disk full"):
        converted_folder()
    assert list(Path(os.environ["MWANDA_CACHE"]).iterdir()) == []


@pytest.mark.usefixtures("package")
def test_a_copy_that_another_process_finished_first_is_taken(
    conversions: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def lose_the_race(made: Path, folder: Path) -> None:
        rename(made, folder)
        raise OSError("Directory not empty")

    monkeypatch.setattr(os, "rename", lose_the_race)
    assert (converted_folder() / "model.safetensors").is_file()
    assert len(conversions) == 1


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, gemma.PACKAGE, None)
    for load in (PackagedGemma().load, PackagedGemma().load_tokenizer, PackagedGemma().load_config):
        with pytest.raises(ModelError, match=r"pip install 'mwanda\[gemma\]'.*model\.path=FOLDER"):
            load()


def test_another_path_is_loaded_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python run.py model.path=FOLDER` names no model, and must not prune the default one under another's name."""
    monkeypatch.setattr("mwanda.models.gemma.PACKAGE", "no_such_package")
    folder = save_tiny_model("llama", tmp_path / "model")
    loaded = PackagedGemma(path=str(folder)).load()
    assert (loaded.id, loaded.revision) == (str(folder), None)
    assert loaded.model.config.model_type == "llama"
