"""The canonical form of a URL: a page has one document id however its address is written.

Scheme and host are in lower case (IDNA). Credentials, default port, fragment and tracking
parameters are removed. Percent escapes are in capitals and only where needed (RFC 3986, section
6.2.2), and dot segments are resolved. Trailing slashes are removed except for the root, because
crawlers report a page with and without them. The remaining parameters of the query keep their
order.
"""

import ipaddress
import re
from urllib.parse import unquote, unquote_plus

import idna

from shared.service.errors import RejectedError

MAX_URL_CHARACTERS = 2048  # as sent and canonical; Postgres indexes at most 2,704 bytes

_DEFAULT_PORTS = {"http": 80, "https": 443}
_TRACKING = frozenset(
    {
        "gclid",
        "gclsrc",
        "dclid",
        "gbraid",
        "wbraid",
        "fbclid",
        "msclkid",
        "yclid",
        "ysclid",
        "twclid",
        "ttclid",
        "igshid",
        "li_fat_id",
        "srsltid",
        "hsctatracking",
        "_hsenc",
        "_hsmi",
        "__hssc",
        "__hstc",
        "__hsfp",
        "_ga",
        "_gl",
        "mkt_tok",
        "oly_enc_id",
        "oly_anon_id",
        "vero_id",
        "vero_conv",
        "s_kwcid",
        "wickedid",
    }
)
_FILE = "file:///"  # sent by `millstream index` for a file on disk
_TRACKING_PREFIXES = ("utm_", "mc_")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_ADDRESS = re.compile(r"//([^/]+)(.*)", re.DOTALL)
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_PORT = re.compile(r"[0-9]{1,5}")
_NOT_PLAIN = re.compile(r"%[0-9A-Fa-f]{2}|[^A-Za-z0-9._~!$&'()*+,;=:@/?-]")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def canonical_url(url: str) -> str:
    """The canonical form, in ASCII; `canonical_url(canonical_url(x)) == canonical_url(x)`.

    Raises RejectedError `invalid_url` for anything but an http or https URL with a host or a file
    URL without one, and for more than 2,048 characters, as sent or in canonical form.
    """
    if url.strip()[: len(_FILE)].lower() == _FILE:
        return _canonical_file(url)
    scheme, authority, path, query = _split(url)
    host = _host_with_port(authority, _DEFAULT_PORTS[scheme])
    path = _normalise_path(path)
    query = _without_tracking(query)
    canonical = f"{scheme}://{host}{path}?{query}" if query else f"{scheme}://{host}{path}"
    _check_length(canonical)
    return canonical


def domain_of(canonical: str) -> str:
    """The host of a canonical URL, without port.

    International names are in `xn--` form, IPv6 has no brackets.
    """
    authority = canonical.split("/", 3)[2]
    if authority.startswith("["):
        return authority[1 : authority.index("]")]
    return authority.partition(":")[0]


def _canonical_file(url: str) -> str:
    _check_length(url)
    path = url.strip()[len(_FILE) - 1 :].partition("#")[0].partition("?")[0]
    if _FORBIDDEN.search(path):
        raise _invalid("contains control characters or lone surrogates")
    canonical = "file://" + _normalise_path(path)
    _check_length(canonical)
    return canonical


def _split(url: str) -> tuple[str, str, str, str]:
    _check_length(url)
    trimmed = url.strip()
    if _FORBIDDEN.search(trimmed):
        raise _invalid("contains control characters or lone surrogates")
    match = _SCHEME.match(trimmed)
    if not match:
        raise _invalid("has no scheme: write http:// or https:// in front")
    scheme = match[1].lower()
    if scheme not in _DEFAULT_PORTS:
        raise _invalid(f"has the scheme {scheme[:20]}: expected http, https or file")
    address, _, query = trimmed[match.end() :].partition("#")[0].partition("?")
    # Browsers read a backslash before the query as a slash: `https://a\@b/` is on host a.
    match = _ADDRESS.fullmatch(address.replace("\\", "/"))
    if not match:
        raise _invalid("has no host")
    return scheme, match[1], match[2], query


def _host_with_port(authority: str, default_port: int) -> str:
    place = authority.rpartition("@")[2]
    host, colon, port = place.rpartition(":")
    if not colon or port.endswith("]"):  # the last colon of an IPv6 address without port
        host, port = place, ""
    host = _normalise_host(host)
    if not port:
        return host
    if not _PORT.fullmatch(port) or not 0 < int(port) < 65536:
        raise _invalid("has an invalid port: expected a number from 1 to 65535")
    return host if int(port) == default_port else f"{host}:{int(port)}"


def _normalise_host(host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        try:
            return f"[{ipaddress.IPv6Address(host[1:-1].partition('%')[0]).compressed}]"
        except ValueError:
            raise _invalid(
                "has an invalid host: expected an IPv6 address in the brackets"
            ) from None
    name = _ascii_host(unquote(host, errors="replace")).lower().removesuffix(".")
    if not _HOST.fullmatch(name):
        raise _invalid("has an invalid host name")
    return name


def _ascii_host(host: str) -> str:
    if host.isascii():
        return host
    try:
        return idna.encode(host, uts46=True).decode()
    except UnicodeError:
        pass
    try:
        return host.encode("idna").decode()  # IDNA 2003 has symbols that IDNA 2008 refuses: i❤.ws
    except UnicodeError:
        raise _invalid("has an invalid international host name") from None


def _normalise_path(path: str) -> str:
    segments: list[str] = []
    for segment in _normalise_escapes(path).split("/")[1:]:
        if segment == "..":
            del segments[-1:]
        elif segment != ".":
            segments.append(segment)
    return "/" + "/".join(segments).rstrip("/")


def _without_tracking(query: str) -> str:
    pieces = (_normalise_escapes(piece) for piece in query.split("&") if piece)
    return "&".join(piece for piece in pieces if not _is_tracking(piece))


def _is_tracking(piece: str) -> bool:
    name = unquote_plus(piece.partition("=")[0]).lower()
    return name in _TRACKING or name.startswith(_TRACKING_PREFIXES)


def _normalise_escapes(text: str) -> str:
    return _NOT_PLAIN.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    found = match[0]
    if len(found) == 1:
        return "".join(f"%{byte:02X}" for byte in found.encode())
    character = chr(int(found[1:], 16))
    return character if character in _UNRESERVED else found.upper()


def _check_length(url: str) -> None:
    if len(url) > MAX_URL_CHARACTERS:
        raise _invalid(f"has {len(url):,} characters: at most {MAX_URL_CHARACTERS:,} are allowed")


def _invalid(why: str) -> RejectedError:
    return RejectedError("invalid_url", f"the URL {why}")
