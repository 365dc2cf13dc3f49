"""Everything a configuration stands for, built and checked before anything is loaded."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mwanda.calibration import Calibration
from mwanda.config import schema
from mwanda.config.identity import EVALUATION_CORPUS, RunSpec
from mwanda.corpora import Corpus, check_disjoint, without_overlap
from mwanda.criteria import Criterion
from mwanda.errors import CorpusError, UnknownKeyError
from mwanda.evaluation.harness import Full, Harness
from mwanda.evaluation.perplexity import Perplexity
from mwanda.inside.collector import Inside
from mwanda.languages import Language, find
from mwanda.models import ModelSource
from mwanda.patterns import Pattern
from mwanda.pruner import Pruner
from mwanda.pruner.method import Method
from mwanda.pruner.requests import check_request
from mwanda.schedules import Schedule
from mwanda.solvers import Solver
from mwanda.tracking import Tracker


if TYPE_CHECKING:
    from mwanda.export import Export


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Texts:
    """The text of a run, by language.

    Args:
        calibration: sentences.
        evaluation: sentences; empty where none are evaluated.
        dropped: how many lines `corpus.drop_overlap` left out of the calibration text.
    """

    calibration: dict[str, list[str]]
    evaluation: dict[str, list[str]]
    dropped: dict[str, int]


@dataclass(frozen=True)
class Parts:
    """Everything a configuration stands for, built and checked, with nothing loaded yet."""

    settings: schema.Settings
    languages: list[Language]
    calibration_languages: list[Language]
    source: ModelSource
    corpus: Corpus
    evaluation_corpus: Corpus
    calibration: Calibration
    criterion: Criterion
    solver: Solver
    schedule: Schedule
    pattern: Pattern
    pruner: Pruner
    evaluation: Perplexity | Harness | Full | None
    inside: Inside | None
    tracker: Tracker
    export: "Export | None"

    @classmethod
    def of(cls, spec: RunSpec, *, elsewhere: bool = False) -> "Parts":
        """Build every part of a run.

        Args:
            spec: the run.
            elsewhere: whether it will run on a machine with other devices than this one, and is only checked here.

        Raises:
            InputError: something cannot be run as asked.
        """
        settings = spec.settings
        nodes = {name: dict(getattr(settings, name)) for name in schema.GROUPS}
        if (elsewhere or settings.mode == "prepare") and nodes["model"].get("device") == "cuda":
            nodes["model"]["device"] = "auto"
        second = nodes["evaluation"].pop("corpus", None)
        if second is not None and nodes["evaluation"].get("_target_") is None:
            raise UnknownKeyError("evaluation.corpus", spec.choices.get(EVALUATION_CORPUS, second), [])
        built = {name: schema.build(name, node, settings.plugins) for name, node in nodes.items()}
        languages = find(settings.langs["codes"])
        calibration = built["calibration"].for_model(built["model"].path)
        codes = calibration.codes([language.code for language in languages])
        parts = cls(
            settings=settings,
            languages=languages,
            calibration_languages=find(codes, f"calibration.{calibration.named_by}"),
            source=built["model"],
            corpus=built["corpus"],
            evaluation_corpus=schema.build("evaluation.corpus", second or nodes["corpus"], settings.plugins),
            calibration=calibration,
            criterion=built["criterion"],
            solver=built["solver"],
            schedule=built["schedule"],
            pattern=built["pattern"],
            pruner=built["pruner"],
            evaluation=built["evaluation"],
            inside=built["inside"],
            tracker=built["tracking"],
            export=built["export"],
        )
        check_request(settings.sparsity, parts.pattern, parts.schedule)
        parts.method.check_order(parts.pruner.order)
        parts.method.check_share(parts.calibration.moment_share)
        if settings.mode != "inspect":
            parts.check_text()
        parts.calibration.divide(dict.fromkeys(codes, 1))
        parts.calibration.weighting(codes)
        if parts.harness is not None:
            parts.harness.choose(parts.languages)
        return parts

    @property
    def method(self) -> Method:
        """The criterion and its solver."""
        return Method.of(self.criterion, self.solver)

    @property
    def perplexity(self) -> Perplexity | None:
        """The part of the evaluation that measures perplexity."""
        if isinstance(self.evaluation, Full):
            return self.evaluation.perplexity
        return self.evaluation if isinstance(self.evaluation, Perplexity) else None

    @property
    def harness(self) -> Harness | None:
        """The part of the evaluation that runs tasks."""
        if isinstance(self.evaluation, Full):
            return self.evaluation.harness
        return self.evaluation if isinstance(self.evaluation, Harness) else None

    @property
    def evaluates_text(self) -> bool:
        """Whether evaluation reads its corpus."""
        return self.perplexity is not None or (self.harness is not None and self.harness.reads_corpus)

    def check_text(self) -> None:
        """Refuse languages that a corpus is known to lack, all at once.

        Raises:
            CorpusError: there are some; the message says what would do.
        """
        sides = [(self.corpus, self.calibration_languages)]
        sides += [(self.evaluation_corpus, self.languages)] if self.evaluates_text else []
        for corpus, languages in sides:
            missing = [language.code for language in languages if corpus.has(language) is False]
            if len(missing) > 1:  # of a single one the corpus itself has more to say
                raise CorpusError(
                    f"corpus={corpus.name} has no text in {len(missing)} of {len(languages)} languages "
                    f"({', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}): langs.available=true keeps only "
                    "what it has; or choose another corpus or set"
                )

    def text(self) -> Texts:
        """Return calibration and evaluation sentences per language.

        Raises:
            CorpusError: a language has no text, or the two sides share a line and `corpus.drop_overlap` is not set.
        """
        calibration = {
            each.code: list(self.corpus.sentences(each, "calibration")) for each in self.calibration_languages
        }
        evaluated = self.languages if self.evaluates_text else []
        evaluation = {each.code: list(self.evaluation_corpus.sentences(each, "evaluation")) for each in evaluated}
        held = {**evaluation}
        for each in self.harness.asked_about(self.languages) if self.harness is not None else ():
            if each.code not in held:
                held[each.code] = list(self.evaluation_corpus.sentences(each, "evaluation"))
        if not self.corpus.drop_overlap:
            check_disjoint(calibration, held)
            return Texts(calibration, evaluation, {})
        calibration, dropped = without_overlap(calibration, held)
        if dropped:
            counts = ", ".join(f"{code} {count}" for code, count in dropped.items())
            logger.info("left out %d calibration lines that evaluation text holds: %s", sum(dropped.values()), counts)
        return Texts(calibration, evaluation, dropped)
