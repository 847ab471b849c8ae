"""Whose machine it is."""

import getpass
import socket

import pytest

from densekit.files.machine_names import as_word, host_names, user_name


def test_a_host_has_its_name_with_and_without_its_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node7.lab.example")
    assert host_names(["login.lab.example", "localhost", "n1", ""]) == {
        *("node7.lab.example", "node7", "login.lab.example", "login"),
    }


def test_a_user_without_a_name_or_with_one_that_tells_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nobody() -> str:
        raise KeyError("uid not found: 12345")

    for name in (lambda: "Ubuntu", lambda: "me", nobody):
        monkeypatch.setattr(getpass, "getuser", name)
        assert user_name() is None
    monkeypatch.setattr(getpass, "getuser", lambda: "alice")
    assert user_name() == "alice"


def test_a_name_is_found_as_a_word() -> None:
    assert as_word("node7").search("on node7.") and as_word("node7").search("(node7)")
    assert not as_word("node7").search("node70 and my-node7 and node7-b")
