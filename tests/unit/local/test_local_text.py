"""What the embedded stack says and writes: exit statuses, URLs without credentials, shell
assignments.
"""

import shlex
import signal
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.fleet import shell_assignments
from local.outside import without_credentials
from local.process import describe_exit

NAMES = st.from_regex(r"[A-Z][A-Z_]{0,20}", fullmatch=True)
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def test_an_exit_status_is_told_as_a_number_or_as_a_signal() -> None:
    assert describe_exit(3) == "exit status 3"
    assert describe_exit(-signal.SIGKILL) == "signal SIGKILL"
    assert describe_exit(-(signal.SIGRTMIN + 1)) == f"signal {signal.SIGRTMIN + 1}"


@given(st.dictionaries(NAMES, VALUES))
def test_assignments_give_back_every_value_when_words_are_split_as_a_shell_does(
    environment: dict[str, str],
) -> None:
    words = shlex.split(shell_assignments(environment))

    assert dict(word.split("=", 1) for word in words) == environment


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        (
            "postgresql://app:geheim@db:5432/millstream?password=geheim",
            "postgresql://db:5432/millstream",
        ),
        (" http://tei:8080 ", "http://tei:8080"),
        ("http://[broken", "(not a URL)"),
    ],
)
def test_a_url_is_shown_without_its_credentials(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


@given(st.text(min_size=1))
def test_a_password_is_never_shown(password: str) -> None:
    secret = f"<{password}>"

    shown = without_credentials(f"redis://app:{quote(secret, safe='')}@cache:6379/0")

    assert shown == "redis://cache:6379/0"
