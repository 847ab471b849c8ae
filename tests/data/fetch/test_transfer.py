"""One file over HTTP: every kind of fault, then the same bytes; what is refused, and with which
words.
"""

import hashlib
import random
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from densekit.data.fetch.remote import Digest, Remote
from densekit.data.fetch.transfer import OVERLAP, Patience, Transfer
from densekit.errors import DataError, UsageError
from tests.support.http_double import FAULTS, Double, serving

CONTENT = random.Random(1).randbytes(5 * OVERLAP + 123)
QUICK = Patience(
    timeout=1,
    attempts=6,
    first_attempts=5,
    first_wait=0.001,
    longest_wait=0.01,
    slowest=20_000,
    window=0.2,
)


@pytest.fixture
def server() -> Iterator[Double]:
    with serving(Double(files={"/a.bin": CONTENT})) as double:
        yield double


@pytest.fixture
def transfer() -> Iterator[Transfer]:
    transfer = Transfer(QUICK)
    yield transfer
    transfer.close()


def remote(server: Double, *, checked: bool = True, size: int | None = None) -> Remote:
    digest = Digest(kind="sha256", value=hashlib.sha256(CONTENT).hexdigest()) if checked else None
    return Remote(url=f"{server.url}/a.bin", page="the page", digest=digest, size=size)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_ends_in_the_same_bytes(
    server: Double, transfer: Transfer, tmp_path: Path, fault: str
) -> None:
    # The drop leaves something to go on with, which faults about ranges need.
    server.faults.extend(["drop", fault, "drop", fault])
    transfer.download(remote(server, size=len(CONTENT)), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    assert len(server.faults) == (2 if fault == "range ignored" else 0)


def test_ten_faults_of_every_kind_in_any_order(
    server: Double, transfer: Transfer, tmp_path: Path
) -> None:
    draw = random.Random(7)
    for number in range(10):
        server.faults = deque(draw.choices([one for one in FAULTS if one != "wrong bytes"], k=2))
        transfer.download(remote(server), tmp_path / f"{number}.bin")
        assert (tmp_path / f"{number}.bin").read_bytes() == CONTENT


def test_a_drop_is_resumed_and_not_started_again(
    server: Double, transfer: Transfer, tmp_path: Path
) -> None:
    server.faults.append("drop")
    told: list[int] = []
    transfer.download(remote(server, checked=False), tmp_path / "a.bin", told.append)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.sent < len(CONTENT) + 2 * OVERLAP
    assert told[-1] == len(CONTENT)


def test_another_call_goes_on_with_what_a_killed_one_left(
    server: Double, transfer: Transfer, tmp_path: Path
) -> None:
    half = CONTENT[: 3 * OVERLAP]
    server.faults.extend(["drop"] + ["500"] * 6)
    with pytest.raises(DataError, match="6 times in a row"):
        transfer.download(remote(server, checked=False), tmp_path / "a.bin")
    assert 0 < (tmp_path / ".a.bin.part").stat().st_size < len(half)
    sent = server.sent
    transfer.download(remote(server, checked=False), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.sent - sent < len(CONTENT)


def test_a_file_that_changed_meanwhile_is_not_mixed(
    server: Double, transfer: Transfer, tmp_path: Path
) -> None:
    server.faults.extend(["drop"] + ["500"] * 6)
    with pytest.raises(DataError):
        transfer.download(remote(server, checked=False), tmp_path / "a.bin")
    newer = random.Random(2).randbytes(len(CONTENT))
    server.files["/a.bin"] = newer
    transfer.download(remote(server, checked=False), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == newer


def test_without_a_name_for_the_bytes_nothing_is_gone_on_with(
    server: Double, transfer: Transfer, tmp_path: Path
) -> None:
    server.etags = False
    server.faults.append("drop")
    transfer.download(remote(server, checked=False), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert [ranged for *_, ranged in server.requests] == [None, None]


def test_a_wrong_checksum_is_named_and_the_file_kept(
    server: Double, transfer: Transfer, tmp_path: Path
) -> None:
    other = bytes(len(CONTENT))
    server.files["/a.bin"] = other
    with pytest.raises(DataError, match=r"the bytes are wrong: SHA-256 .*, listed is .* the page"):
        transfer.download(remote(server), tmp_path / "a.bin")
    assert not (tmp_path / "a.bin").exists()
    assert (tmp_path / "a.bin.wrong").read_bytes() == other
    assert server.bodies("/a.bin") == 2, "the same wrong bytes twice: a third time mends nothing"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("page", "a web page in place of the file"),
        ("401", "access refused .*no token was given.*open the page, accept its terms.*HF_TOKEN"),
        ("403", "access refused"),
        ("404", "not published there any more.*--from DIR"),
        ("418", "HTTP 418"),
    ],
)
def test_what_no_second_attempt_mends_is_said_at_once(
    server: Double,
    transfer: Transfer,
    tmp_path: Path,
    fault: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    server.faults.append(fault)
    with pytest.raises(DataError, match=f"(?s){words}"):
        transfer.download(remote(server), tmp_path / "a.bin")
    assert len(server.requests) == 1


def test_a_page_in_answer_to_a_resumed_request_leaves_what_is_here(
    server: Double, transfer: Transfer, tmp_path: Path
) -> None:
    server.faults.extend(["drop", "page"])
    with pytest.raises(DataError, match="web page"):
        transfer.download(remote(server), tmp_path / "a.bin")
    kept = (tmp_path / ".a.bin.part").read_bytes()
    assert kept and CONTENT.startswith(kept)


def test_a_server_that_is_gone_is_named(tmp_path: Path, transfer: Transfer) -> None:
    with serving(Double()) as double:
        url = double.url
    with pytest.raises(DataError, match="5 times in a row; check the network and the proxy"):
        transfer.download(Remote(url=f"{url}/a", page="p"), tmp_path / "a")


def test_retry_after_is_waited_for_within_reason() -> None:
    patience = Patience(first_wait=1, longest_wait=60)
    assert 0.5 <= patience.wait(1, None) <= 1
    assert patience.wait(1, 30) == 30
    assert patience.wait(1, 9999) == 60


def test_git_blobs_are_hashed_as_git_does(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello\n")
    digest = Digest(kind="git", value="ce013625030ba8dba906f756967f9e9ca394464a")
    assert digest.of(tmp_path / "a") == digest.value


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("HTTP_PROXY", "ftp://x", "the proxy that .* cannot be used: write http://HOST:PORT"),
        ("ALL_PROXY", "socks5://x:1", "the proxy that .* cannot be used: write http://HOST:PORT"),
        ("HTTPS_PROXY", "http://x:port", "the proxy that .* cannot be used"),
        ("SSL_CERT_FILE", "/nowhere", "certificates cannot be read .*SSL_CERT_FILE names a file"),
    ],
)
def test_variables_that_cannot_be_used_are_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=words):
        Transfer()
