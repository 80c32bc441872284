"""The stages of a search: accuracy of every feature from its cache, then files and times of those worth it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from clip_export.encoders.feature_names import POOLED
from clip_export.heads.mlp import VLMtoMLP
from clip_export.training.judging.decisions import Judge
from clip_export.training.judging.outcome import Judgement, judge_head
from clip_export.training.preparation import Bar, Prepared
from clip_export.tuning.candidates import FLOAT32, INT8, Found, depth_of, features_of
from clip_export.tuning.choice import front
from clip_export.tuning.files import Files, features_by_file
from clip_export.tuning.heads import HEADS, Fold, cross_validated
from clip_export.tuning.record import Record
from clip_export.tuning.subject import Subject
from clip_toolkit.judging.figures import Interval

_LARGEST_GAIN = 4.0
"""How many times faster than float32 int8 may be, at most: what is left out for its time would stay too slow."""


@dataclass
class Search:
    """A search under way.

    Attributes:
        subjects: the encoders; the pooled feature of the first, in float32, is the reference.
        parts: folds of the images that may be learnt from.
        record: what is known already.
        files: writes and times files.
        deadline: of `time.monotonic`, after which no further candidate is tried.
        bar: shows progress.
        say: told what was not tried.
        scatter: largest of all times, as in `timed_in_turns`.
    """

    subjects: Sequence[Subject]
    parts: Sequence[Fold]
    record: Record
    files: Files
    deadline: float
    bar: Bar
    say: Callable[[str], None]
    scatter: float = field(default=0.0, init=False)
    _references: list[float] = field(default_factory=list, init=False)

    def score(self) -> list[Found]:
        """Cross-validate a linear head on every feature, in float32; the later half of the time is left for files."""
        half = (time.monotonic() + self.deadline) / 2
        todo = [(subject, name) for subject in self.subjects for name in features_of(subject.encoder)]
        scored = []
        with self.bar("accuracy", len(todo)) as advance:
            for subject, name in todo:
                if depth_of(name) in (None, 1) or time.monotonic() < half:
                    scored.append(self._scored(subject, name, FLOAT32, "linear"))
                advance(1)
        self._say_left(len(todo) - len(scored), "tried")
        return scored

    def measure(self, scored: Sequence[Found], max_latency: float | None) -> list[Found]:
        """Write and time files of the features that are worth it, in float32 and int8, each with its better head.

        Those are the two ends of each encoder, and between them what nothing beats in accuracy and expected time. Of
        encoders at other input sizes the ends are left out, too, once the time is over.
        """
        ends, measured = list[Found](), list[Found]()
        for subject in self.subjects:
            own = subject.encoder.input_size is None
            ends += _ends(subject.name, scored)
            measured += self._measured(ends[-2:], float("inf") if own else self.deadline)
        between = [item for item in self._worth_a_file(scored, measured, max_latency) if item not in ends]
        measured += self._measured(between, self.deadline)
        self._say_left(len(ends) + len(between) - len(measured) // 2, "measured")
        here = statistics.median(self._references)
        return [replace(item, latency=item.seconds * here) for item in measured]

    def confirm(self, found: Found) -> tuple[VLMtoMLP, Prepared, Judgement]:
        """Fit a candidate's head, and judge it once on the images that the search has not looked at."""
        subject = self.subject(found)
        features = judged = subject.feature(found.feature)
        if found.precision == INT8:
            judged = features.clone()
            rows = [*subject.split.validation, *subject.split.test]
            judged[rows] = features_by_file(self.files.write(subject, found)[INT8], subject.pixels[rows])
        prepared = subject.prepared(features, judged)
        head = HEADS[found.head](prepared.train, subject.dataset.task)
        return head, prepared, judge_head(Judge(subject.dataset.task, subject.dataset.labels), prepared, head)

    def subject(self, found: Found) -> Subject:
        """Return the encoder of a candidate."""
        return next(subject for subject in self.subjects if subject.name == found.encoder)

    def _say_left(self, count: int, what: str) -> None:
        if count:
            self.say(f"{count} features were not {what}, since the time is over: give more --minutes")

    def _scored(
        self, subject: Subject, feature: str, precision: str, head: str, computed: Callable[[], Tensor] | None = None
    ) -> Found:
        """Cross-validate, on features that the file has ``computed`` if it is not float32, unless that is known."""
        found = Found(subject.name, feature, precision, head, Interval(0, 0, 0))
        known = self.record.get("accuracy", found.key)
        if known is None:
            learnt = subject.examples(subject.feature(feature), subject.learnt)
            groups = [subject.dataset.groups[row] for row in subject.learnt]
            judged = learnt.features if computed is None else computed()
            known = cross_validated(head, learnt, judged, parts=self.parts, dataset=subject.dataset, groups=groups)
            self.record.put("accuracy", found.key, known)
        return replace(found, accuracy=Interval(*known))

    def _worth_a_file(self, scored: Sequence[Found], ends: Sequence[Found], max_latency: float | None) -> list[Found]:
        """Return what nothing beats, with times expected on the line through one block and all blocks."""
        expected = []
        for subject in self.subjects:
            both = [item.seconds for item in ends if item.encoder == subject.name and item.precision == FLOAT32]
            if len(both) < 2:
                continue
            shallow, whole = sorted(both)
            blocks = subject.encoder.blocks.depth
            step = (whole - shallow) / max(blocks - 1, 1)
            expected += [
                replace(item, latency=whole - step * (blocks - (depth_of(item.feature) or blocks)))
                for item in scored
                if item.encoder == subject.name
            ]
        most = float("inf")
        if max_latency is not None:
            most = _LARGEST_GAIN * max_latency / statistics.median(self._references)
        return [replace(item, latency=None) for item in front([item for item in expected if item.seconds <= most])]

    def _measured(self, features: Sequence[Found], deadline: float = float("inf")) -> list[Found]:
        measured: list[Found] = []
        with self.bar("files", len(features)) as advance:
            for found in features:
                if time.monotonic() < deadline:
                    measured += self._both_files(found)
                advance(1)
        return measured

    def _both_files(self, found: Found) -> list[Found]:
        """Measure the files of a feature in both precisions, with the better head: times in those of the reference."""
        subject = self.subject(found)
        tried = [self._scored(subject, found.feature, FLOAT32, head) for head in HEADS]
        best = max(tried, key=lambda item: item.accuracy.value)
        both = [best, replace(best, precision=INT8)]
        kept = [self.record.get(kind, item.key) for item in both for kind in ("times", "accuracy")]
        paths = self.files.write(subject, best) if None in kept else {}

        def computed() -> Tensor:
            return features_by_file(paths[INT8], subject.pixels[subject.learnt])

        both[1] = self._scored(subject, found.feature, INT8, best.head, computed)
        return [self._timed(subject, item, paths) for item in both]

    def _timed(self, subject: Subject, found: Found, paths: dict[str, Path]) -> Found:
        known = self.record.get("times", found.key)
        if known is None:
            known = self.files.measure(found, paths[found.precision], subject, self.subjects[0])
            self.record.put("times", found.key, known)
        reference, ratio, scatter, size = known
        self._references.append(reference)
        self.scatter = max(self.scatter, scatter)
        return replace(found, latency=ratio, size=int(size))


def _ends(encoder: str, scored: Sequence[Found]) -> tuple[Found, Found]:
    """Return the pooled feature of an encoder, and the best after its first block."""
    own = [item for item in scored if item.encoder == encoder]
    first = max((item for item in own if depth_of(item.feature) == 1), key=lambda item: item.accuracy.value)
    return next(item for item in own if item.feature == POOLED), first
