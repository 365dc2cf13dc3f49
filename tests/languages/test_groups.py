"""Which languages stand in which group."""

from mwanda.languages import find
from mwanda.languages.groups import GROUPINGS, calibrated, calibration_labels, labels, members


CODES = ["tam_Taml", "swh_Latn", "deu_Latn", "hin_Deva"]


def test_languages_are_grouped_in_the_order_in_which_they_come() -> None:
    found = {grouping: members(labels(find(CODES), grouping), CODES) for grouping in GROUPINGS}
    assert found == {
        "family": {
            "Dravidian": ["tam_Taml"],
            "Atlantic-Congo": ["swh_Latn"],
            "Indo-European": ["deu_Latn", "hin_Deva"],
        },
        "script": {"Taml": ["tam_Taml"], "Latn": ["swh_Latn", "deu_Latn"], "Deva": ["hin_Deva"]},
        "resource_level": {"mid": ["tam_Taml"], "low": ["swh_Latn"], "high": ["deu_Latn", "hin_Deva"]},
    }
    assert list(found["script"]) == ["Taml", "Latn", "Deva"]


def test_a_language_without_a_group_is_in_none() -> None:
    assert members({"deu_Latn": "one"}, CODES) == {"one": ["deu_Latn"]}


def test_a_language_that_was_named_and_gave_no_token_is_unseen() -> None:
    seen = calibrated({"swh_Latn": 64, "deu_Latn": 0})
    assert seen == {"swh_Latn"}
    assert calibration_labels(["deu_Latn", "swh_Latn", "tam_Taml"], seen) == {
        "deu_Latn": "unseen",
        "swh_Latn": "seen",
        "tam_Taml": "unseen",
    }
