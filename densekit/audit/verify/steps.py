"""Verifying what a run fed and measured: every step against its feed, the hash chain, and the batch
certificate.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from densekit.audit.verify.checks import Subject, check_file
from densekit.batching.certificate import BatchCertificate, CertificateBuilder, step_digest
from densekit.errors import DataError
from densekit.files.json_files import read_json, read_jsonl
from densekit.runs.layout import CERTIFICATE_FILE
from densekit.runs.manifest import CERTIFIED, MANIFEST_FILE
from densekit.runs.records import FEED_FILE, LINKED, METRICS_FILE, chain_next, images_digest
from densekit.spec.check import Check

REMEDY = "put back a copy of the file, or train again (`densekit run --force`)"


def check_steps(subject: Subject) -> Iterator[Check]:
    """Recompute every step's digests from the feed and the chain from the metrics; name the first
    that does not fit.
    """
    metrics, feed = subject.path / METRICS_FILE, subject.path / FEED_FILE
    if not subject.complete and not metrics.exists() and not feed.exists():
        return
    half = [path for path in (metrics, feed) if not subject.complete and _is_half_written(path)]
    if half:
        message = f"{half[0]} ends in half a line (killed while writing); its steps are not checked until it is resumed"
        yield Check(name="steps", state="warn", message=message)
        return
    for path in (metrics, feed):
        if not path.exists():
            raise DataError(f"{path} is missing, so no step can be checked against the other file")
    records, fed = read_jsonl(metrics), read_jsonl(feed)
    chain = subject.run
    for number, record in enumerate(records, start=1):
        problem = _step_problem(
            number, chain, record, fed[number - 1] if number <= len(fed) else None, metrics, feed
        )
        if problem:
            yield Check(name="steps", state="fail", message=f"{problem}; {REMEDY}")
            return
        chain = record["chain"]
    if len(fed) > len(records) + (
        not subject.complete
    ):  # the feed is written first: a kill leaves it one ahead
        message = f"{feed} goes on to line {len(fed)}, but {metrics} ends after step {len(records)}; {REMEDY}"
        yield Check(name="steps", state="fail", message=message)
        return
    recorded = subject.of_manifest("chain")
    if recorded and recorded != {"steps": len(records), "sha256": chain}:
        message = (
            f"{metrics} ends after {len(records)} steps with chain {chain[:16]}..., the manifest says "
            f"{recorded.get('steps')} steps and {str(recorded.get('sha256'))[:16]}...; {REMEDY}"
        )
        yield Check(name="steps", state="fail", message=message)
        return
    yield Check(
        name="steps", state="ok", message=f"{len(records)} steps fit the feed and the hash chain"
    )


def check_metrics_file(subject: Subject) -> Iterator[Check]:
    """The bytes of metrics.jsonl: what the chain does not cover, such as learning rates and token
    counts.
    """
    if (digest := subject.manifest.get("metrics_sha256")) is not None:
        yield check_file(
            "metrics", subject.path / METRICS_FILE, digest, source="the manifest", remedy=REMEDY
        )


def check_certificate(subject: Subject) -> Iterator[Check]:
    """The batch certificate, recomputed from the feed when it holds every step, and the manifest's
    copy of it.
    """
    path, feed = subject.path / CERTIFICATE_FILE, subject.path / FEED_FILE
    if not path.exists() and not subject.complete and not subject.manifest:
        return
    value = read_json(path)
    try:
        certificate = BatchCertificate.from_json(value)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    recorded = subject.of_manifest("certificate")
    if recorded and recorded != {name: getattr(certificate, name) for name in CERTIFIED}:
        message = f"{path} is not the certificate that {MANIFEST_FILE} says; one of them was edited: {REMEDY}"
        yield Check(name="certificate", state="fail", message=message)
        return
    if not subject.complete and (not feed.exists() or _is_half_written(feed)):
        return
    fed = read_jsonl(feed)
    if len(fed) < certificate.steps and not subject.complete:
        message = f"{len(fed)} of {certificate.steps} steps are fed: the certificate is checked when all are"
        yield Check(name="certificate", state="warn", message=message)
        return
    if len(fed) != certificate.steps:
        message = f"{feed} holds {len(fed)} steps, {path} says {certificate.steps}; {REMEDY}"
        yield Check(name="certificate", state="fail", message=message)
        return
    builder = CertificateBuilder()
    for number, line in enumerate(fed, start=1):
        builder.add(step_digest(_items(line, "samples", feed, number)))
    if builder.sha256 != certificate.sha256:
        message = f"{feed} does not add up to the hash in {path}: other samples were fed, or a file was edited; {REMEDY}"
        yield Check(name="certificate", state="fail", message=message)
        return
    yield Check(
        name="certificate",
        state="ok",
        message=f"the feed's {len(fed)} steps add up to the certificate",
    )


def _step_problem(
    number: int,
    chain: str,
    record: dict[str, Any],
    fed: dict[str, Any] | None,
    metrics: Path,
    feed: Path,
) -> str | None:
    """What does not fit in one step, in words; None when everything does."""
    missing = [name for name in ("step", *LINKED, "chain") if name not in record]
    if missing or record["step"] != number:
        what = f"has no {', '.join(missing)}" if missing else f"is step {record['step']}"
        return f"{metrics}: line {number} {what}: a line was edited, lost or doubled"
    if fed is None:
        return f"{feed} ends before step {number}, which {metrics} has"
    if fed.get("step") != number:
        return (
            f"{feed}: line {number} is step {fed.get('step')}: a line was edited, lost or doubled"
        )
    fits = chain_next(chain, record) == record["chain"]
    digests = {
        "ids": step_digest(_items(fed, "samples", feed, number)),
        "images": images_digest(_items(fed, "images", feed, number)),
    }
    for name, digest in digests.items():
        if record[name] != digest:
            edited = (
                f"{feed} was edited" if fits else f"{metrics} was edited"
            )  # the chain vouches for the metrics
            return f"step {number}: `{name}` does not fit the feed: {edited}"
    if not fits:
        return f"{metrics}: step {number} does not fit the hash chain: its loss, grad_norm or chain was edited"
    return None


def _items(line: dict[str, Any], name: str, feed: Path, number: int) -> list[Any]:
    items = line.get(name)
    allowed = str | None if name == "images" else str
    if not isinstance(items, list) or not all(isinstance(item, allowed) for item in items):
        raise DataError(f"{feed}: line {number} has no list of {name}: it was edited")
    return items


def _is_half_written(path: Path) -> bool:
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read() != b"\n"
