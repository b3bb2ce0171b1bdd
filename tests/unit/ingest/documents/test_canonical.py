from urllib.parse import urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.documents.canonical import MAX_URL_CHARACTERS, canonical_url, domain_of
from shared.service.errors import RejectedError

pieces = st.sampled_from(
    [
        "http://",
        "HTTPS://",
        "a.example",
        "Ünï.example",
        "[::1]",
        "user:pw@",
        ":80",
        ":443",
        ":08080",
        "/",
        "//",
        ".",
        "..",
        "%2e",
        "%7E",
        "%zz",
        "%",
        "%c3%bc",
        "ü",
        " ",
        "\\",
        "?",
        "&",
        "=",
        "utm_source=x",
        "UTM%5Fx=1",
        "a=1",
        "#",
        "+",
        "[]",
    ]
)
urls = st.lists(pieces, max_size=14).map("".join) | st.text().map(
    lambda rest: f"https://a.example/{rest}"
)


@pytest.mark.parametrize(
    ("sent", "canonical"),
    [
        ("HTTPS://Docs.Example.COM/Path", "https://docs.example.com/Path"),
        ("http://example.com", "http://example.com/"),
        ("http://example.com:80/a", "http://example.com/a"),
        ("https://example.com:443/a", "https://example.com/a"),
        ("https://example.com:8443/a", "https://example.com:8443/a"),
        ("https://example.com:/a", "https://example.com/a"),
        ("https://example.com:08443/a", "https://example.com:8443/a"),
        ("https://user:pass@example.com/a", "https://example.com/a"),
        ("https://user@evil:x@example.com/a", "https://example.com/a"),
        ("https://example.com/a#top", "https://example.com/a"),
        ("https://example.com#top?x=1", "https://example.com/"),
        ("  https://example.com/a\n", "https://example.com/a"),
        ("https://example.com./a", "https://example.com/a"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://BÜCHER.example/", "https://xn--bcher-kva.example/"),
        ("https://b%C3%BCcher.example/", "https://xn--bcher-kva.example/"),
        ("https://i❤.ws/", "https://xn--i-7iq.ws/"),
        ("https://例え。jp/", "https://xn--r8jz45g.jp/"),
        ("http://[2001:DB8:0:0::1]:80/a", "http://[2001:db8::1]/a"),
        ("http://[::1]:8080", "http://[::1]:8080/"),
        ("https://example.com\\@evil.example/a", "https://example.com/@evil.example/a"),
        ("https://my_host.example/", "https://my_host.example/"),
        ("http://localhost:3000/docs", "http://localhost:3000/docs"),
    ],
)
def test_scheme_host_and_port_are_normalised(sent: str, canonical: str) -> None:
    assert canonical_url(sent) == canonical


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        ("/%7euser/%c3%bc", "/~user/%C3%BC"),
        ("/ü", "/%C3%BC"),
        ("/a b", "/a%20b"),
        ("/a%2fb", "/a%2Fb"),
        ("/100%", "/100%25"),
        ("/%%34%31", "/%2541"),
        ("/a/./b/../c", "/a/c"),
        ("/a/%2E%2e/c", "/c"),
        ("/../../a", "/a"),
        ("/a//b", "/a//b"),
        ("/\u017f", "/%C5%BF"),
    ],
)
def test_paths_are_normalised(path: str, canonical: str) -> None:
    assert canonical_url(f"https://example.com{path}") == f"https://example.com{canonical}"


@pytest.mark.parametrize("path", ["/docs", "/docs/", "/docs//", "/docs/.", "/docs/x/.."])
def test_trailing_slashes_are_removed(path: str) -> None:
    assert canonical_url(f"https://example.com{path}") == "https://example.com/docs"


@pytest.mark.parametrize("path", ["", "/", "//", "/.", "/.."])
def test_the_root_keeps_its_slash(path: str) -> None:
    assert canonical_url(f"https://example.com{path}") == "https://example.com/"


def test_a_slash_before_the_query_is_removed_and_one_inside_it_is_kept() -> None:
    assert canonical_url("https://example.com/a/?next=/b/") == "https://example.com/a?next=/b/"


@pytest.mark.parametrize(
    "parameter",
    [
        "utm_source=x",
        "UTM_Campaign=x",
        "utm%5fmedium=x",
        "gclid=1",
        "fbclid=1",
        "mc_cid=1",
        "mc_eid=1",
        "hsCtaTracking=1",
        "HSCTATRACKING=1",
        "_hsenc=1",
        "msclkid=1",
        "utm_source",
    ],
)
def test_tracking_parameters_are_removed_in_any_case(parameter: str) -> None:
    assert canonical_url(f"https://example.com/a?{parameter}") == "https://example.com/a"
    assert (
        canonical_url(f"https://example.com/a?b=2&{parameter}&a=1")
        == "https://example.com/a?b=2&a=1"
    )


@pytest.mark.parametrize(
    "query",
    ["b=2&a=1", "a=1&a=1", "a", "a=", "q=utm_source", "ref=x", "id=1;utm_x", "a=b?c", "a+b=1"],
)
def test_the_rest_of_the_query_stays_in_order(query: str) -> None:
    assert canonical_url(f"https://example.com/?{query}") == f"https://example.com/?{query}"


def test_empty_parameters_are_removed() -> None:
    assert canonical_url("https://example.com/?&a=1&&b=2&") == "https://example.com/?a=1&b=2"
    assert canonical_url("https://example.com/?") == "https://example.com/"


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ("", "no scheme"),
        ("example.com/a", "no scheme"),
        ("//example.com/a", "no scheme"),
        ("ftp://example.com/a", "ftp"),
        ("javascript:alert(1)", "javascript"),
        ("mailto:a@example.com", "mailto"),
        ("https://", "no host"),
        ("https:///a", "no host"),
        ("https:example.com", "no host"),
        ("https://user@/a", "invalid host name"),
        ("https://:80/a", "invalid host name"),
        ("https://a..b/", "invalid host name"),
        ("https://a b/", "invalid host name"),
        ("https://%2f/", "invalid host name"),
        (f"https://{'a' * 64}.example/", "invalid host name"),
        (f"https://{'a.' * 130}example/", "invalid host name"),
        ("https://\ufffdü.example/", "international host name"),
        ("https://[::g]/", "IPv6"),
        ("https://example.com:99999/", "port"),
        ("https://example.com:0/", "port"),
        ("https://example.com:٨٠/", "port"),
        ("https://example.com/a\nb", "control"),
        ("https://example.com/\x00", "control"),
        ("https://example.com/\ud800", "control"),
    ],
)
def test_an_invalid_url_is_rejected_with_the_reason(sent: str, reason: str) -> None:
    with pytest.raises(RejectedError, match=reason) as caught:
        canonical_url(sent)
    assert caught.value.code == "invalid_url"


def test_an_address_is_bounded_as_sent_and_in_its_canonical_form() -> None:
    longest = "https://example.com/".ljust(MAX_URL_CHARACTERS, "a")
    assert canonical_url(longest) == longest
    for too_long in (longest + "a", "https://example.com/" + "ü" * 400):
        with pytest.raises(RejectedError, match="at most 2,048"):
            canonical_url(too_long)


@settings(deadline=None)
@given(urls)
@example("https://a.example/%%34%31")
@example("https://a.example//.//..//")
def test_a_canonical_url_is_canonical_already(url: str) -> None:
    try:
        canonical = canonical_url(url)
    except RejectedError:
        return
    assert canonical_url(canonical) == canonical
    assert canonical.isascii()
    assert len(canonical) <= MAX_URL_CHARACTERS
    parts = urlsplit(canonical)
    assert parts.scheme in {"http", "https"}
    assert (parts.username, parts.fragment) == (None, "")
    assert domain_of(canonical) == parts.hostname


@pytest.mark.parametrize(
    ("url", "domain"),
    [
        ("https://user:pw@Docs.Example.com:8443/a", "docs.example.com"),
        ("http://[::1]:8080/", "::1"),
        ("https://bücher.example", "xn--bcher-kva.example"),
        ("https://www.example.com/a:b@c", "www.example.com"),
    ],
)
def test_the_domain_is_the_host_alone(url: str, domain: str) -> None:
    assert domain_of(canonical_url(url)) == domain
