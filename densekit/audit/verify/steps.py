"""Verifying what a run fed and measured: every step against its feed, the hash chain, and the batch
certificate.
"""

from collections.abc import Iterator
from pathlib import Path

from densekit.audit.run_reader import RecordedRun
from densekit.audit.verify.file_hashes import check_file
from densekit.audit.wording import count_of
from densekit.batching.certificate import BatchCertificate, CertificateBuilder, step_digest
from densekit.errors import DataError
from densekit.files.json_files import read_json
from densekit.runs.layout import CERTIFICATE_FILE
from densekit.runs.manifest import MANIFEST_FILE, Certified, Chain
from densekit.runs.record_check import first_problem
from densekit.runs.records import FEED_FILE, METRICS_FILE, REMEDY
from densekit.spec.check import Check


def check_steps(run: RecordedRun) -> Iterator[Check]:
    """Recompute every step's digests from the feed and the chain from the metrics; name the first
    that does not fit.
    """
    metrics, feed = run.path / METRICS_FILE, run.path / FEED_FILE
    if not run.complete and not metrics.exists() and not feed.exists():
        return
    cut = [path for path in (metrics, feed) if not run.complete and _ends_in_half_a_line(path)]
    if cut:
        message = (
            f"{cut[0]} ends in half a line (killed while writing); its steps are not checked until "
            "the run is resumed"
        )
        yield Check(name="steps", state="warn", message=message)
        return
    for path in (metrics, feed):
        if not path.exists():
            raise DataError(f"{path} is missing, so the steps cannot be checked; {REMEDY}")
    run.require(METRICS_FILE, FEED_FILE)
    problem = _first_problem(run, metrics, feed)
    if problem is None:
        message = f"{count_of(len(run.steps), 'step')} match the feed and the hash chain"
        yield Check(name="steps", state="ok", message=message)
    else:
        yield Check(name="steps", state="fail", message=f"{problem}; {REMEDY}")


def check_metrics_file(run: RecordedRun) -> Iterator[Check]:
    """The bytes of metrics.jsonl: what the chain does not cover, such as the seconds of a step."""
    if run.manifest is not None and (digest := run.manifest.metrics_sha256) is not None:
        yield check_file(
            "metrics", run.path / METRICS_FILE, digest, source="the manifest", remedy=REMEDY
        )


def check_certificate(run: RecordedRun) -> Iterator[Check]:
    """The batch certificate, recomputed from the feed when it holds every step, and the manifest's
    copy of it.
    """
    path, feed = run.path / CERTIFICATE_FILE, run.path / FEED_FILE
    if not path.exists() and not run.complete and run.manifest is None:
        return
    value = read_json(path, remedy=REMEDY)
    try:
        certificate = BatchCertificate.from_json(value)
    except DataError as error:
        raise DataError(f"{path}: {error}; {REMEDY}") from None
    if run.manifest is not None and run.manifest.certificate != Certified.of(certificate):
        message = (
            f"{path} is not the certificate in {MANIFEST_FILE}: one of them was edited; {REMEDY}"
        )
        yield Check(name="certificate", state="fail", message=message)
        return
    if not run.complete and (not feed.exists() or _ends_in_half_a_line(feed)):
        return
    run.require(FEED_FILE)
    fed, wanted = len(run.feed), certificate.steps
    if fed < wanted and not run.complete:
        message = f"{fed} of {wanted} steps were fed: the certificate is checked when all are"
        yield Check(name="certificate", state="warn", message=message)
        return
    if fed != wanted:
        message = f"{feed} holds {count_of(fed, 'step')}, {path} says {wanted}; {REMEDY}"
        yield Check(name="certificate", state="fail", message=message)
        return
    builder = CertificateBuilder()
    for line in run.feed:
        builder.add(step_digest(line.samples))
    if builder.sha256 != certificate.sha256:
        message = (
            f"the hash of {feed} is not the one in {path}: other samples were fed, or a file was "
            f"edited; {REMEDY}"
        )
        yield Check(name="certificate", state="fail", message=message)
        return
    message = f"the samples fed in {count_of(fed, 'step')} have the certificate's hash"
    yield Check(name="certificate", state="ok", message=message)


def _first_problem(run: RecordedRun, metrics: Path, feed: Path) -> str | None:
    """The first thing in metrics and feed that does not fit, in words; None when everything
    does.
    """
    # The manifest's hash comes first, so that an edited math.json fails its own check only.
    if run.manifest is not None:
        start = run.manifest.run
    elif run.math is not None:
        start = run.math.sha256
    else:
        return "the hash that the chain starts from is unknown: math.json is damaged"
    problem = first_problem(start, run.steps, run.feed, run=run.path)
    if problem is not None:
        return problem
    chain = run.steps[-1].chain if run.steps else start
    measured = count_of(len(run.steps), "step")
    # The feed is written first: a kill leaves it one line ahead.
    if len(run.feed) > len(run.steps) + (not run.complete):
        return f"{feed} has {count_of(len(run.feed), 'step')}, {metrics} has {measured}"
    recorded = run.manifest.chain if run.manifest is not None else None
    if recorded is not None and recorded != Chain(steps=len(run.steps), sha256=chain):
        return (
            f"{metrics} ends after {measured} with chain {chain[:16]}..., the manifest says "
            f"{count_of(recorded.steps, 'step')} and {recorded.sha256[:16]}..."
        )
    return None


def _ends_in_half_a_line(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read() != b"\n"
