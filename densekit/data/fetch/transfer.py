"""One file over HTTP, whatever the network does: it is resumed after any interruption, a server
that lies about ranges is noticed, and it becomes visible whole or not at all.

huggingface_hub's own download begins anew after a kill and leaves what it had behind, so files of
the hub come this way too.
"""

import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from densekit.data.fetch.archives import PAGE
from densekit.data.fetch.part_file import PartFile
from densekit.data.fetch.remote import Remote
from densekit.errors import DataError, UsageError

if TYPE_CHECKING:
    import httpx2

OVERLAP = 1 << 16
"""A resumed request asks for so many bytes again: they must be those already there."""
_CHUNK = 1 << 18
_AGAIN = (408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524)
"""Status codes that another attempt may not meet."""
_CERTIFICATES = "SSL_CERT_FILE names a file with the certificates of a proxy or a private authority"
_STARTS_ANEW = 3
"""A file whose bytes are wrong is fetched so many times."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a server is waited for."""

    timeout: float = 60
    """Seconds without one byte."""
    attempts: int = 10
    """In a row without progress."""
    first_attempts: int = 5
    """The same for a host that has not answered yet: there may be no network at all."""
    first_wait: float = 1
    """Seconds before the second attempt; doubled before each further one."""
    longest_wait: float = 60
    slowest: float = 1024
    """Bytes/s: a connection that is slower for `window` seconds is opened anew."""
    window: float = 60

    def wait(self, failures: int, asked: float | None) -> float:
        """Seconds to wait after so many failures in a row; `asked`: what the server asks for."""
        wait: float = min(self.first_wait * 2 ** (failures - 1), self.longest_wait)
        wait *= random.uniform(0.5, 1)
        return wait if asked is None else max(wait, min(asked, self.longest_wait))


class _TryAgainError(Exception):
    """What another request may mend."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class Transfer:
    """Downloads over one client. Several threads may use one.

    Raises UsageError where the variables of proxies or certificates cannot be used.
    """

    def __init__(
        self, patience: Patience | None = None, say: Callable[[str], None] = lambda _: None
    ) -> None:
        import httpx2

        self.patience, self._say = patience or Patience(), say
        self._answered: set[str] = set()
        self.stop = threading.Event()
        """Set: downloads end at their next chunk; what they have stays."""
        try:
            self._client = httpx2.Client(
                follow_redirects=True,
                timeout=self.patience.timeout,
                headers={"Accept-Encoding": "identity", "User-Agent": "densekit"},
            )
        except OSError as error:
            raise UsageError(
                f"certificates cannot be read ({_words(error)}); {_CERTIFICATES}"
            ) from None
        except (ValueError, ImportError, httpx2.InvalidURL):
            raise UsageError(
                "the proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names cannot be used: write "
                "http://HOST:PORT or https://HOST:PORT"
            ) from None

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def size(self, remote: Remote) -> int | None:
        """Bytes that a server says a file has; None where it does not say or answer."""
        import httpx2

        if remote.size is not None:
            return remote.size
        try:
            answer = self._client.head(remote.url, headers=dict(remote.headers))
        except httpx2.HTTPError:
            return None
        is_file = answer.is_success and not _is_page(answer)
        return _number(answer.headers.get("Content-Length")) if is_file else None

    def download(
        self, remote: Remote, target: Path, tell: Callable[[int], None] = lambda _: None
    ) -> None:
        """Get a file as `target`, or go on with what an earlier call left of it. `tell` gets the
        bytes that are there after each chunk.

        Raises DataError for what another attempt does not mend, OSError for the disk. What was
        received stays beside `target`.
        """
        part = PartFile(target, remote)
        wrong: list[str] = []
        while True:
            self._receive(remote, part, tell)
            problem = part.problem()
            if problem is None:
                part.publish()
                return
            repeated = problem in wrong
            wrong.append(problem)
            if repeated or len(wrong) >= _STARTS_ANEW:
                kept = part.put_aside()
                raise DataError(
                    f"{remote.url}: {problem}, after {len(wrong)} downloads; see {remote.page}: the"
                    f" file may have been replaced; what came is kept as {kept}"
                )
            part.clear()

    def _receive(self, remote: Remote, part: PartFile, tell: Callable[[int], None]) -> None:
        """Request until everything is there."""
        import httpx2

        failures = 0
        while True:
            before = part.size
            try:
                self._request(remote, part, tell)
                return
            except _TryAgainError as again:
                reason, after = str(again), again.after
            except (httpx2.TransportError, httpx2.DecodingError) as error:
                reason, after = _words(error), None
                if "CERTIFICATE_VERIFY" in reason:
                    raise DataError(f"{remote.url}: {reason}; {_CERTIFICATES}") from None
            except httpx2.HTTPError as error:
                raise DataError(f"{remote.url}: {_words(error)}; see {remote.page}") from None
            least = max(1, min(OVERLAP, (part.total or 0) // 100))
            went_on = part.may_resume and part.size - before >= least
            failures = 1 if went_on else failures + 1
            known = urlsplit(remote.url).netloc in self._answered
            if failures >= (self.patience.attempts if known else self.patience.first_attempts):
                kept = f"{part.size} bytes are kept; " if part.size else ""
                raise DataError(
                    f"{remote.url}: {reason}, {failures} times in a row; {kept}check the network "
                    "and the proxy variables, then give the same command again"
                )
            seconds = self.patience.wait(failures, after)
            if failures > 1:
                self._say(f"{remote.url}: {reason}; trying again in {seconds:.0f} s")
            if self.stop.wait(seconds):
                raise KeyboardInterrupt

    def _request(self, remote: Remote, part: PartFile, tell: Callable[[int], None]) -> None:
        """One request for what is missing; returns when everything is there."""
        tell(part.size)
        if part.is_complete:
            return
        overlap = min(OVERLAP, part.size) if part.may_resume else 0
        start = part.size - overlap if overlap else 0
        headers = dict(remote.headers)
        if overlap:
            headers["Range"] = f"bytes={start}-"
            if part.validator:
                headers["If-Range"] = part.validator
        with self._client.stream("GET", remote.url, headers=headers) as answer:
            if overlap and answer.status_code == 416:
                part.clear()
                raise _TryAgainError("the server has fewer bytes than are already here")
            self._answered.add(urlsplit(remote.url).netloc)
            self._check(answer, remote)
            resumed = overlap > 0 and answer.status_code == 206
            total = _total(answer, start=start if resumed else 0)
            chunks = _steady(self, answer)
            if resumed:
                first = next(chunks, b"")
                while len(first) < overlap and (more := next(chunks, b"")):
                    first += more
                if not part.agrees(answer.headers.get("Content-Range"), total, first[:overlap]):
                    if len(first) < overlap:
                        raise _TryAgainError("the connection ended early")
                    part.distrust()
                    raise _TryAgainError("the server sent another range than was asked for")
                part.begin(answer.headers, total, resumed=True)
                first = first[overlap:]
            else:
                first = next(chunks, b"")
                if PAGE.match(first):
                    raise _page_error(remote)
                if remote.size is not None and total is not None and total != remote.size:
                    raise _TryAgainError(f"the server has {total} bytes, {remote.size} are listed")
                part.begin(answer.headers, total, resumed=False)
            part.write(first)
            tell(part.size)
            for chunk in chunks:
                part.write(chunk)
                tell(part.size)
        if not part.ended():
            raise _TryAgainError(f"the connection ended after {part.size} of {part.total} bytes")

    def _check(self, answer: "httpx2.Response", remote: Remote) -> None:
        code = answer.status_code
        if code in _AGAIN:
            raise _TryAgainError(f"HTTP {code}", _number(answer.headers.get("Retry-After")))
        if code in (401, 403):
            raise access_error(remote.url, remote.page, code)
        if code in (404, 410):
            raise DataError(
                f"{remote.url}: HTTP {code}: it is not published there any more; see {remote.page},"
                " and bring the file with --from DIR"
            )
        if not answer.is_success:
            raise DataError(f"{remote.url}: HTTP {code}; see {remote.page}")
        if _is_page(answer):
            raise _page_error(remote)


def access_error(what: str, page: str, code: int | str) -> DataError:
    """What to do about a repository that wants a token or consent."""
    given = bool(os.environ.get("HF_TOKEN"))
    token = "the token in HF_TOKEN has no access" if given else "no token was given"
    return DataError(
        f"{what}: HTTP {code}: access refused ({token}): open {page}, accept its terms with your "
        "account, and set HF_TOKEN to a token of it; then run the same command again"
    )


def _page_error(remote: Remote) -> DataError:
    return DataError(
        f"{remote.url}: the server sent a web page in place of the file (a login, a notice, a "
        f"proxy's page): open {remote.page} in a browser, and bring the file with --from DIR; "
        "nothing was changed"
    )


def _is_page(answer: "httpx2.Response") -> bool:
    return bool(re.match(r"text/html\b", answer.headers.get("Content-Type", ""), re.IGNORECASE))


def _steady(transfer: Transfer, answer: "httpx2.Response") -> Iterator[bytes]:
    """The chunks of a response, as long as they come fast enough."""
    patience = transfer.patience
    began, received = time.monotonic(), 0
    for chunk in answer.iter_bytes(_CHUNK) if _encoded(answer) else answer.iter_raw():
        if transfer.stop.is_set():
            raise KeyboardInterrupt
        received += len(chunk)
        yield chunk
        seconds = time.monotonic() - began
        if seconds >= patience.window:
            if received < patience.slowest * seconds:
                raise _TryAgainError(f"only {received} bytes came in {seconds:.0f} s")
            began, received = time.monotonic(), 0


def _encoded(answer: "httpx2.Response") -> bool:
    return answer.headers.get("Content-Encoding", "identity") != "identity"


def _total(answer: "httpx2.Response", *, start: int) -> int | None:
    """Bytes of the whole file, as a response says."""
    if _encoded(answer):
        return None
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers.get("Content-Range", ""))
    if found:
        return int(found[3])
    length = _number(answer.headers.get("Content-Length"))
    return None if length is None else start + length


def _number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"\d{1,18}", text) else None


def _words(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
