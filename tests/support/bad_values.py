"""Values that a parameter must refuse, made from its declared type."""

from collections.abc import Iterator
from typing import Any

from msgspec import inspect

DIGITS = "9" * 5000  # more than int() takes
NUL, SURROGATE = "a\0b", "a\udcffb"


def bad_values(kind: Any) -> Iterator[str]:
    """Texts that are no `kind`; NUL and lone surrogates are none of any type."""
    yield NUL
    yield SURROGATE
    yield from _of_type(inspect.type_info(kind))


def _of_type(info: inspect.Type) -> Iterator[str]:
    match info:
        case inspect.Metadata(type=inner):
            yield from _of_type(inner)
        case inspect.UnionType(types=types):
            yield from _of_type(
                next(each for each in types if not isinstance(each, inspect.NoneType))
            )
        case inspect.IntType() | inspect.FloatType():
            yield from _numbers(info)
        case inspect.BoolType() | inspect.EnumType():
            yield from ("", "null", "nonsense", "2")
        case inspect.VarTupleType(item_type=item):
            yield from (f"1,{value}" for value in _of_type(item) if value)
        case inspect.CustomType(cls=cls):
            yield from ("", "null", "nonsense")
            if issubclass(cls, float):
                yield from ("-1", DIGITS, f"{DIGITS}d", "1000000d", "nan", "inf", "1w", "\u0663s")
        case inspect.StrType(min_length=shortest, max_length=longest):
            yield from ([""] if shortest else []) + (
                ["a" * (longest + 1)] if longest is not None else []
            )


def _numbers(info: inspect.IntType | inspect.FloatType) -> Iterator[str]:
    assert info.le is not None, "a number without an upper bound"
    yield from ("", "null", "many", "0x1", DIGITS, f"-{DIGITS}", str(info.le + 1))
    if isinstance(info, inspect.IntType):
        assert info.ge is not None, "a number without a lower bound"
        yield from ("1.5", str(info.ge - 1))
    else:
        assert info.gt is not None, "a number without a lower bound"
        yield from ("nan", "inf", "-inf", "1e999", str(info.gt))
