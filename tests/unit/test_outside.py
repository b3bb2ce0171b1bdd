"""What a test run reads from its environment about the TEI and Qdrant that it is given."""

from pathlib import Path

import pytest

from tests.support.outside import outside

COMMAND = "env PORT={port} 'a server' --data {data}/x --api-key '{key}'"


def test_without_variables_nothing_is_given() -> None:
    found = outside("qdrant", {})
    assert not found.is_given
    assert not found.is_shared


def test_a_server_with_a_url_alone_is_shared() -> None:
    found = outside("tei", {"MILLSTREAM_TEST_TEI_URL": "http://tei.test:80/"})
    assert (found.url, found.is_given, found.is_shared) == ("http://tei.test:80", True, True)


def test_a_command_gives_each_test_a_server_of_its_own() -> None:
    variables = {"URL": "http://qdrant.test", "KEY": "k", "COMMAND": COMMAND}
    found = outside("qdrant", {f"MILLSTREAM_TEST_QDRANT_{n}": v for n, v in variables.items()})
    assert not found.is_shared
    assert found.argv(port=21000, data=Path("/my data"), key="a key") == [
        "env", "PORT=21000", "a server", "--data", "/my data/x", "--api-key", "a key",
    ]  # fmt: skip


def test_a_command_without_a_port_is_refused() -> None:
    with pytest.raises(ValueError, match=r"MILLSTREAM_TEST_TEI_COMMAND must hold \{port\}"):
        outside("tei", {"MILLSTREAM_TEST_TEI_COMMAND": "router --port 80"})
