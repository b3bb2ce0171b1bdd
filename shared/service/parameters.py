"""Query parameters, parts of a path and JSON bodies to Structs.

A bad value is a problem that says what was expected.

Besides what msgspec knows a field may have a class that parses itself, see `Parsed`.
"""

import difflib
import functools
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Protocol, Self, TypeVar, cast, get_args

import msgspec
from msgspec import Meta, inspect
from multidict import MultiMapping

from shared.service.http import ProblemError

S = TypeVar("S", bound=msgspec.Struct)

# Neither Postgres nor JSON takes these; aiohttp keeps bytes that are not UTF-8 as lone surrogates.
_UNUSABLE = re.compile(r"[\x00\ud800-\udfff]")
_MAX_SHOWN = 64  # characters of a name or value that an error repeats

# It travels in URLs; Qdrant refuses path characters.
COLLECTION_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
COLLECTION_WORDS = (
    "1 to 128 letters, digits, dots, dashes and underscores, beginning with a letter or digit"
)

Text = Annotated[str, Meta(pattern=r"\A[^\x00]*\Z", description="text without NUL characters")]
ShortText = Annotated[str, Meta(min_length=1, max_length=500, pattern=r"\A[^\x00]*\Z")]
JobId = Annotated[
    str,
    Meta(pattern=r"\A[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}\Z", description="a UUID"),
]
CollectionName = Annotated[
    str, Meta(pattern=rf"\A{COLLECTION_PATTERN}\Z", description=COLLECTION_WORDS)
]


class Parsed(Protocol):
    """A class that a parameter may have: a subclass of str or float that checks the text it is made
    from.

    msgspec does not encode a subclass of str: an answer must repeat `str(value)`.
    """

    expected: ClassVar[str]  # what it takes, for errors: "a duration such as 30s"
    schema: ClassVar[Mapping[str, Any]]  # JSON schema

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError with the reason, without the parameter's name."""


def read_query(query: MultiMapping[str], kind: type[S], *, is_lenient: bool = False) -> S:
    """The query as a `kind`. Raises ProblemError (422) that names the parameter.

    A parameter must be known and given once: a misspelt filter would otherwise mean everything.
    With `is_lenient` unknown ones are ignored, and of a repeated one the first counts. A list is
    separated by commas.
    """
    fields = _fields(kind)
    values: dict[str, Any] = {}
    for name in dict.fromkeys(query):
        if name in fields:
            given = query.getall(name)
            if len(given) > 1 and not is_lenient:
                raise unprocessable(f"repeated parameter `{name}`: expected it once")
            values[fields[name].name] = _read(name, given[0], fields[name].type)
        elif not is_lenient:
            raise unprocessable(f"unknown parameter `{_shown(name)}`{_hint(name, list(fields))}")
    for name, field in fields.items():
        if field.required and field.name not in values:
            raise unprocessable(f"missing parameter `{name}`: expected {expected(field.type)}")
    return kind(**values)


def read_path(name: str, text: str, kind: Any) -> Any:
    """Return the part `name` of a path.

    Raises ProblemError (404): a thing with an impossible name does not exist.
    """
    try:
        return _convert(text, kind)
    except ValueError as error:
        detail = f"no such `{name}`: `{_shown(text)}`, expected {expected(kind)}"
        raise ProblemError(404, "Not Found", detail) from error


def read_body(body: bytes, kind: type[msgspec.Struct]) -> Any:
    """A JSON body; an empty one stands for `{}`. Raises ProblemError (400, 422)."""
    try:
        return _decoder(kind).decode(body if body.strip() else b"{}")
    except msgspec.ValidationError as error:
        raise unprocessable(explain(error, kind)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError(400, "Bad Request", f"the body is not valid JSON: {error}") from error


def explain(error: msgspec.ValidationError, kind: Any) -> str:
    """Return what is wrong with JSON that should be a `kind`, as for the query."""
    reason, _, place = str(error).partition(" - at `$.")
    name = place.partition("[")[0].removesuffix("`")  # of a list, whichever element it is
    field = _fields(kind).get(name)
    if field is None or isinstance(_type_info(field.type), inspect.StructType):
        return f"invalid body: {error}"
    if _parsed_class(field.type) is not None:
        return f"invalid value for `{name}`: {reason}"
    return f"invalid value for `{name}`: expected {expected(field.type)}"


def expected(kind: Any) -> str:
    """What a value of this type is, in words."""
    return _described(inspect.type_info(kind))


def schema_of_parsed(kind: Any) -> dict[str, Any]:
    """The JSON schema of a class that parses itself: a `schema_hook` of msgspec."""
    if hasattr(kind, "schema"):
        return dict(kind.schema)
    raise NotImplementedError(f"no schema of {kind}")


def unprocessable(detail: str) -> ProblemError:
    """The answer to a request that is well-formed but cannot be used."""
    return ProblemError(422, "Unprocessable Content", detail)


def _read(name: str, text: str, kind: Any) -> Any:
    try:
        return _convert(text, kind)
    except msgspec.ValidationError as error:
        raise unprocessable(f"invalid value for `{name}`: expected {expected(kind)}") from error
    except ValueError as error:
        raise unprocessable(f"invalid value for `{name}`: {error}") from error


def _convert(text: str, kind: Any) -> Any:
    """Raises ValueError, of which msgspec's ValidationError is one."""
    if _UNUSABLE.search(text):
        raise ValueError(f"expected {expected(kind)}, without NUL characters and lone surrogates")
    if parsed := _parsed_class(kind):
        return parsed.parse(text)
    value: Any = text
    info = _type_info(kind)
    if isinstance(info, inspect.VarTupleType):
        value = [part.strip() for part in text.split(",") if part.strip()]
    elif isinstance(info, inspect.EnumType):
        value = text.strip().lower()
    if value == "null" and not isinstance(info, inspect.StrType):  # msgspec would take it for None
        raise ValueError(f"expected {expected(kind)}")
    return msgspec.convert(value, kind, strict=False)


def _parsed_class(kind: Any) -> type[Parsed] | None:
    for each in (kind, *get_args(kind)):
        if isinstance(each, type) and hasattr(each, "parse"):
            return cast("type[Parsed]", each)
    return None


def _described(info: inspect.Type) -> str:
    words = "another type of value"
    match info:
        case inspect.Metadata(type=inner, extra_json_schema=extra):
            words = str((extra or {}).get("description") or _described(inner))
        case inspect.UnionType():
            words = _described(_without_null(info))
        case inspect.IntType(ge=lowest, le=highest):
            words = "a whole number" + _range(lowest, highest)
        case inspect.FloatType(gt=above, le=highest):
            words = (
                f"a number above {above:g}, at most {highest:g}"
                if highest is not None
                else "a number"
            )
        case inspect.BoolType():
            words = "true or false"
        case inspect.EnumType(cls=members):
            words = f"one of {', '.join(str(member.value) for member in members)}"
        case inspect.StrType(min_length=shortest, max_length=longest):
            words = (
                f"text of {shortest or 0} to {longest:,} characters"
                if longest is not None
                else "text"
            )
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            words = f"a list, each element {_described(item)}"
        case inspect.CustomType(cls=cls):
            words = str(getattr(cls, "expected", cls.__name__))
    return words


def _range(lowest: int | None, highest: int | None) -> str:
    if highest is None:
        return f" of at least {lowest}" if lowest is not None else ""
    return f" from {lowest or 0} to {highest}"


def _without_null(info: inspect.Type) -> inspect.Type:
    if isinstance(info, inspect.UnionType):
        return next(each for each in info.types if not isinstance(each, inspect.NoneType))
    return info


def _hint(name: str, known: list[str]) -> str:
    if not known:
        return ": this route takes no parameters"
    nearest = difflib.get_close_matches(name, known, n=1)
    return f": did you mean `{nearest[0]}`?" if nearest else f": expected {', '.join(known)}"


def _shown(text: str) -> str:
    return text[:_MAX_SHOWN].encode("ascii", "backslashreplace").decode()


# Cached: introspection takes 0.1 ms for each query, and more for each parameter.


@functools.cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """By the names that clients send."""
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


@functools.cache
def _type_info(kind: Any) -> inspect.Type:
    return _without_null(inspect.type_info(kind))


@functools.cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, dec_hook=_from_json)


def _from_json(kind: type, value: Any) -> Any:
    is_number = (
        isinstance(value, int | float) and not isinstance(value, bool) and issubclass(kind, float)
    )
    if hasattr(kind, "parse") and (isinstance(value, str) or is_number):
        return kind.parse(str(value))
    raise ValueError(f"expected {getattr(kind, 'expected', kind.__name__)}")
