"""The examination: entries, images, tokens, counts and certificate, one after the other."""

import os
import random
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from densekit.data.annotation_file import open_annotations
from densekit.data.certificate import (
    CertifiedFile,
    DataCertificate,
    certificate_path,
    certify,
    differences,
    known_root,
    read_certificate,
    write_certificate,
)
from densekit.data.doctor.composition import Folder, compare_counts, composition
from densekit.data.doctor.conversations import Entries, examine_entries
from densekit.data.doctor.files import Files, examine_files, pick_sample, report_files
from densekit.data.doctor.findings import Findings
from densekit.data.doctor.pins import Pin, pin
from densekit.data.doctor.pool import Job
from densekit.data.doctor.record import Record
from densekit.data.doctor.repair import Repaired, repair
from densekit.data.doctor.subject import Subject
from densekit.data.doctor.tokens import EntryText, Tokens, counting_of, token_counter
from densekit.data.doctor.tree import Tree
from densekit.errors import DataError, DensekitError, UsageError
from densekit.spec.roots import Roots

Depth = Literal["headers", "sample", "full"]
SAMPLED_ENTRIES = 2000
"""Whose tokens are counted where not every entry's are."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """How closely to look."""

    depth: Depth = "headers"
    sample: int = 0
    """Images that are decoded in a sample."""
    seed: int = 0
    """Draws the sample."""
    repair: bool = False
    against: Path | None = None
    """A certificate to compare with; None: the one that is kept, if any."""
    workers: int = 0
    """Processes; 0: this one."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """Everything that was found."""

    subject: Subject
    request: Request
    findings: Findings
    annotations_sha256: str | None
    entries: Entries
    folders: tuple[Folder, ...]
    files: Files | None
    """None where there is no annotation file to name any."""
    tokens: Counter[int]
    """Entries by length in tokens, of those that were counted."""
    repaired: tuple[Repaired, ...]
    certificate: DataCertificate | None
    """Of a full examination."""
    certificate_file: Path | None
    """Where it was written."""

    @property
    def errors(self) -> int:
        """Findings that training refuses."""
        return self.findings.count("error")

    @property
    def notes(self) -> int:
        """Findings that training takes."""
        return self.findings.count("note")


def examine(subject: Subject, request: Request, cache: Path) -> Examination:
    """Look at a subject; what is wrong is in the result, not raised."""
    findings = Findings()
    try:
        with open_annotations(subject.annotations) as file:
            entries, digest = examine_entries(subject, file, findings)
    except DataError as error:
        detail = str(error)
        if subject.to_get and not os.path.lexists(subject.annotations):
            detail = f"there is no such file; {subject.to_get}"
        findings.add("annotations", str(subject.annotations), detail)
        return _nothing(subject, request, findings)
    if not entries.texts:
        return _nothing(subject, request, findings, entries)
    tree = Tree(subject.images)
    repaired: list[Repaired] = []
    if request.repair:
        absent = [name for name in entries.images if tree.listing.state(name) is None]
        repaired = repair(subject.data_set, absent, tree)
        tree = Tree(subject.images)
    files = _files(entries, tree, request, cache)
    unusable = report_files(files, entries.images, tree, findings, semantics=subject.semantics)
    if subject.missing != "refuse":
        _apply_policy(subject, entries, unusable, findings)
    compare_counts(subject.data_set, subject.samples, entries, tree, findings)
    tokens = _tokens(subject, entries, request, findings)
    certificate = written = None
    if request.depth == "full":
        certificate = _certify(subject, digest, files)
        written = _keep_certificate(subject, request, certificate, cache, findings)
    _compare_pin(subject, digest, certificate, findings)
    return Examination(
        subject=subject,
        request=request,
        findings=findings,
        annotations_sha256=digest,
        entries=entries,
        folders=composition(entries.images, tree),
        files=files,
        tokens=tokens,
        repaired=tuple(repaired),
        certificate=certificate,
        certificate_file=written,
    )


def _nothing(
    subject: Subject, request: Request, findings: Findings, entries: Entries | None = None
) -> Examination:
    return Examination(
        subject=subject,
        request=request,
        findings=findings,
        annotations_sha256=None,
        entries=entries or Entries(),
        folders=(),
        files=None,
        tokens=Counter(),
        repaired=(),
        certificate=None,
        certificate_file=None,
    )


def _files(entries: Entries, tree: Tree, request: Request, cache: Path) -> Files:
    names = list(entries.images)
    decoded: frozenset[str] = frozenset()
    if request.depth == "full":
        decoded = frozenset(names)
    elif request.depth == "sample":
        decoded = pick_sample(names, request.sample, request.seed)
    record = Record(tree.folder, cache)
    files = examine_files(tree, names, decoded, record, workers=request.workers)
    if request.depth == "full":
        record.finish(files.pictures)
    return files


def _apply_policy(
    subject: Subject, entries: Entries, unusable: frozenset[str], findings: Findings
) -> None:
    """Unusable images of a recipe that drops or replaces their entries are no errors, up to its
    ceiling.
    """
    bad = sum(len(entries.images[name]) for name in unusable)
    if bad <= subject.missing_ceiling * entries.count:
        findings.policy = f"`data.missing: {subject.missing}` of the recipe decides"


def _tokens(
    subject: Subject, entries: Entries, request: Request, findings: Findings
) -> Counter[int]:
    """Count the tokens of every entry of a full examination, else of a sample; the others are
    known by their words.
    """
    lengths: Counter[int] = Counter()
    texts = entries.texts
    if request.depth != "full" and len(texts) > SAMPLED_ENTRIES:
        texts = random.Random(request.seed).sample(texts, SAMPLED_ENTRIES)
    counting = counting_of(subject)
    if counting is not None:
        try:
            token_counter(counting)
        except (DensekitError, OSError) as error:
            findings.add("tokenizer", str(counting.tokenizer), str(error))
            counting = None
    found: dict[int, Tokens] = {}
    if counting is not None:
        what = f"{subject.annotations}: conversations counted in tokens"
        job: Job[EntryText, Tokens | None] = Job(
            make=token_counter, arguments=(counting,), what=what
        )
        for text, tokens in job.run(texts, request.workers):
            if tokens is not None:
                found[text.index] = tokens
    for index in sorted(found):
        _report_tokens(found[index], index, subject.max_length or 0, findings)
        lengths[found[index].length] += 1
    for index, words in entries.wordy.items():
        if index not in found:
            findings.add("too_long_words", f"entry {index}", f"{words} words")
    return lengths


def _report_tokens(tokens: Tokens, index: int, max_length: int, findings: Findings) -> None:
    place = f"entry {index}"
    if tokens.length > max_length:
        findings.add("too_long_tokens", place, f"{tokens.length} tokens")
    if tokens.masked:
        findings.add("labels_masked", place)
    elif tokens.labels == 0:
        findings.add("nothing_learnt", place, f"{tokens.length} tokens")


def _compare_pin(
    subject: Subject, digest: str, certificate: DataCertificate | None, findings: Findings
) -> None:
    """Compare with what was pinned of the data set."""
    if subject.pin is None:
        return
    if subject.pin.annotations_sha256 != digest:
        detail = f"{digest}; pinned is {subject.pin.annotations_sha256}"
        findings.add("pin_differs", str(subject.annotations), detail)
    pinned = subject.pin.certificate_root
    if certificate is not None and pinned not in (None, certificate.root):
        detail = f"certificate {certificate.root}; pinned is {pinned}"
        findings.add("pin_differs", str(subject.images), detail)


def _certify(subject: Subject, digest: str, files: Files) -> DataCertificate:
    return certify(
        subject.annotations.name,
        digest,
        [
            CertifiedFile(
                path=name,
                size=picture.size,
                sha256=picture.sha256 or "",
                width=picture.width,
                height=picture.height,
                decodes=bool(picture.decodes),
            )
            for name, picture in files.pictures.items()
        ],
    )


def _keep_certificate(
    subject: Subject, request: Request, now: DataCertificate, cache: Path, findings: Findings
) -> Path | None:
    """Compare with an earlier certificate; keep the new one, under another name where it differs.
    Returns where it was written.
    """
    kept = certificate_path(cache, now.annotations_sha256, subject.images)
    earlier = request.against or (kept if kept.is_file() else None)
    different = False
    if earlier is not None:
        try:
            before = read_certificate(earlier)
        except DataError as error:
            findings.add("certificate_file", str(earlier), str(error))
            return None
        for what, path, detail in differences(before, now):
            different = True
            findings.add(f"certificate_{what}", path, detail)
    place = kept.with_suffix(".new.json") if different and kept.is_file() else kept
    try:
        write_certificate(place, now)
    except OSError as error:
        findings.add("certificate_file", str(place), f"not written: {error.strerror}")
        return None
    return place


def pin_verified(
    subject: Subject, request: Request, roots: Roots, *, again: bool
) -> tuple[Pin, Path]:
    """Pin a data set once it was examined; returns the pin and the file it is in.

    Raises UsageError for what is no data set of the catalog, DataError for data that training
    refuses, or where another hash is pinned, unless `again`.
    """
    if subject.data_set is None:
        raise UsageError(
            f"{subject.name} is no copy of a data set of the catalog: nothing would compare with "
            "its pin"
        )
    found = examine(replace(subject, pin=None), request, roots.cache)
    if found.errors or found.annotations_sha256 is None:
        raise DataError(
            f"{subject.annotations}: {found.errors} "
            f"{'error' if found.errors == 1 else 'errors'}, so it is not pinned: `densekit data "
            f"verify {subject.name}` names them"
        )
    digest = found.annotations_sha256
    pinned = Pin(
        annotations_sha256=digest,
        annotations_size=subject.annotations.stat().st_size,
        certificate_root=known_root(roots.cache, digest, subject.images),
    )
    return pin(roots.data, subject.data_set, pinned, again=again)
