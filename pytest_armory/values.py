"""Anything -> parameter strings; anything -> metrics and arrays; secrets -> `[redacted]`.

NumPy, torch and pandas are known by what their objects answer to; none of them is imported. Kinds
are looked up on `type(value)`, never on the value, so that a mock that answers everything is taken
for nothing. Foreign code is met with `except Exception`: what is not an `Exception` (Ctrl-C, a
timeout plugin's signal, a cancelled task) may come from outside the value and passes.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import math
import numbers
import os
import re
import shlex
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import islice
from pathlib import PurePath
from types import ModuleType
from typing import Any
from uuid import UUID

PARAM_LIMIT = 6000
"""Characters of one parameter value; MLflow cuts a longer one without a word."""
REDACTED = "[redacted]"

_KEY_LIMIT = 250
_REPR_LIMIT = 2_000  # of an object known only by its repr; some print whole networks
_NESTED_TEXT = 20_000  # of one string inside a list: a hundred documents must not make 100 MB
_SHOWN = (100, 20, 10)  # members shown at each depth of nesting; their product bounds the work
_DEPTH = 32  # of mappings in mappings
_OPENED = 10_000  # mappings opened in one call: one held twice on every level doubles at each
_ARRAY_DEPTH = 100  # NumPy allows 64 dimensions
_ARRAY_VALUES = 5_000_000  # written as JSON for one result


# --- One value -> one string -------------------------------------------------------------------


def describe(value: object) -> str:
    """One value as a short honest string; never raises an `Exception`, whatever the value.

    Scalars, strings and paths as they are, a string whole however long; arrays and frames by
    type, shape and dtype; callables by qualified name; containers as far as they are short.
    `<module.Type>` for whatever has no stable, reasonable `repr`.
    """
    return _describe(value, 0)


def _describe(value: object, depth: int) -> str:
    try:
        for text_of in (_scalar_text, _callable_text, _members_text, _array_text):
            if (text := text_of(value, depth)) is not None:
                return text
        text = str.__str__(repr(value))
        if len(text) <= _REPR_LIMIT and " at 0x" not in text and " id='" not in text:
            return text
    except Exception:  # noqa: BLE001 - a foreign repr or property may raise anything
        return f"<{_type_name(type(value))}>"
    return f"<{_type_name(type(value))}>"


def _type_name(kind: type) -> str:
    # Read past the metaclass, which may answer with anything, or raise.
    name: str = vars(type)["__qualname__"].__get__(kind)
    try:
        module = vars(type)["__module__"].__get__(kind)
    except AttributeError:
        return name
    if not isinstance(module, str) or module == "builtins":
        return name
    # pandas moved its classes' `__module__` from pandas.core.* between versions.
    return f"{'pandas' if module.startswith('pandas.') else module}.{name}"


def _scalar_text(value: Any, depth: int) -> str | None:
    kind = type(value)
    if value is None or kind is bool:
        return str(value)
    if issubclass(kind, Enum) and value.name:
        return f"{kind.__qualname__}.{value.name}"
    if issubclass(kind, str):
        text = str.__str__(value)
        return repr(clip(text, _NESTED_TEXT)) if depth else text
    if issubclass(kind, (bytes, bytearray)):
        return repr(value) if len(value) <= 100 else f"{kind.__qualname__}({len(value):,} bytes)"
    for builtin in (int, float):  # their subclasses may print themselves in any way
        if issubclass(kind, builtin):
            return builtin.__repr__(value)
    if issubclass(kind, (numbers.Number, Decimal, date, time, timedelta, PurePath, UUID)):
        return str(value)
    return None


def _callable_text(value: Any, depth: int) -> str | None:
    kind = type(value)
    if issubclass(kind, type):
        return _type_name(value)
    if issubclass(kind, ModuleType):
        return str(value.__name__)
    if issubclass(kind, functools.partial):
        called = [_describe(item, depth + 1) for item in (value.func, *value.args)]
        return f"partial({', '.join([*called, *_named_texts(value.keywords.items(), depth)])})"
    name = getattr(value, "__qualname__", None) if callable(value) else None
    if type(name) is not str:
        return None
    module = getattr(value, "__module__", None)
    return f"{module}.{name}" if type(module) is str and module != "builtins" else name


def _members_text(value: Any, depth: int) -> str | None:
    kind = type(value)
    pairs = _pairs(value)
    if pairs is None and not issubclass(kind, (list, tuple, set, frozenset, deque)):
        return None
    size = len(value if pairs is None else pairs)
    shown = _SHOWN[depth] if depth < len(_SHOWN) else 0
    if issubclass(kind, (set, frozenset)):
        # Sorted, because the order of strings in a set differs between processes.
        texts = sorted(_describe(item, depth + 1) for item in value) if size <= shown else []
    elif pairs is None:
        texts = [_describe(item, depth + 1) for item in islice(value, shown)]
    elif issubclass(kind, Mapping):
        texts = [
            f"{_describe(name, depth + 1)}: {_member_text(name, item, depth)}"
            for name, item in pairs[:shown]
        ]
    else:
        texts = _named_texts(pairs[:shown], depth)
    if size > len(texts):
        texts.append(f"… {size - len(texts):,} more")
    inner = ", ".join(texts)
    if pairs is not None:
        return f"{{{inner}}}" if issubclass(kind, Mapping) else f"{kind.__qualname__}({inner})"
    if issubclass(kind, tuple):
        return f"({inner},)" if size == 1 and texts else f"({inner})"
    if issubclass(kind, (set, frozenset)):
        text = f"{{{inner}}}" if size else ""
        return text if kind is set and size else f"{kind.__qualname__}({text})"
    return f"[{inner}]"


def _named_texts(pairs: Any, depth: int) -> list[str]:
    return [f"{name}={_member_text(name, item, depth)}" for name, item in pairs]


def _member_text(name: object, item: object, depth: int) -> str:
    return REDACTED if _hides(describe(name), item) else _describe(item, depth + 1)


def _array_text(value: Any, depth: int) -> str | None:
    if not _is_array(value):
        return None
    shape, dtype = tuple(value.shape), getattr(value, "dtype", None)
    if shape == () and getattr(dtype, "kind", "") in ("m", "M"):
        return str(value)  # `.item()` of a date in nanoseconds is a bare integer
    if shape == ():
        item = value.item()
        return str(value) if type(item) is type(value) else _describe(item, depth)
    parts = [f"shape={shape}"]
    columns = next((n for n in ("column_names", "columns") if hasattr(type(value), n)), None)
    if columns:
        parts.append(f"columns={_describe(list(getattr(value, columns)), depth)}")
    elif dtype is not None:
        name = getattr(dtype, "name", None)
        parts.append(f"dtype={name if name else str(dtype).removeprefix('torch.')}")
    # NumPy's is always the word "cpu"; a frame's or a series' may be a column.
    if hasattr(type(value), "device") and not isinstance(value.device, str):
        parts.append(f"device={value.device}")
    return f"{_type_name(type(value))}({', '.join(parts)})"


def _is_array(value: Any) -> bool:
    """Has a shape that is really a tuple of integers, and what goes with one."""
    if not hasattr(type(value), "shape") and "shape" not in getattr(value, "__dict__", ()):
        return False
    shape = value.shape
    return (
        issubclass(type(shape), tuple)
        and all(type(length) is int for length in shape)
        and any(hasattr(value, name) for name in ("dtype", "tolist", "columns", "column_names"))
    )


# --- What has named members --------------------------------------------------------------------


_Members = list[tuple[Any, Any]] | None


def _has_names(kind: type) -> bool:
    return (
        issubclass(kind, Mapping)
        or dataclasses.is_dataclass(kind)
        or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
    )


def _pairs(value: Any) -> _Members:
    """Names and members of a mapping, dataclass instance or namedtuple; None for the rest."""
    kind = type(value)
    if not _has_names(kind):
        return None
    if issubclass(kind, Mapping):
        return list(islice(value.items(), len(value)))  # its iterator may have no end
    if dataclasses.is_dataclass(kind):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(kind)]
    return list(zip(value._fields, value, strict=True))


class _Refused(Exception):  # noqa: N818 - also handed on as a value: why there is none
    pass


def _leaves(
    key: str | None,
    value: Any,
    joint: str,
    look: Callable[[str, Any], tuple[Any, _Members]],
    path: tuple[int, ...] = (),
    room: Iterator[int] | None = None,
) -> Iterator[tuple[str, Any]]:
    """Joined key and value of all that `look` does not open, depth first and in order."""
    room = iter(range(_OPENED)) if room is None else room
    try:
        value, members = look(key or "", value)
    except Exception:  # noqa: BLE001 - members that cannot be read are told by their owner's type
        members = None
    if members is None:
        yield key or "", value
    elif id(value) in path:
        yield key or "", _Refused("<cycle>")
    elif len(path) >= _DEPTH or next(room, None) is None:
        yield key or "", _Refused("<nested too deep>")
    else:
        for name, member in members:
            inner = key if name is None else _key_text(name, joint)
            if key is not None and name is not None:
                inner = f"{key}{joint}{inner}"
            yield from _leaves(inner, member, joint, look, (*path, id(value)), room)


def _key_text(name: Any, joint: str) -> str:
    return joint.join(map(describe, name)) if type(name) is tuple else describe(name)


# --- Parameters and keys -----------------------------------------------------------------------


def param_strings(params: Mapping[str, object], *, prefix: str = "") -> dict[str, str]:
    """Parameters as flat strings, `prefix.key.inner`, redacted and of any length.

    Mappings, dataclass instances and namedtuples are flattened; the keys are legal for MLflow and
    the values encode as UTF-8. The caller cuts with `clip`, keeping the whole.
    """
    strings: dict[str, str] = {}
    used: dict[str, int] = {}

    def own(key: str) -> str:  # what the caller's prefix is called is not the value's secret
        return key.removeprefix(prefix)

    def look(key: str, value: Any) -> tuple[Any, _Members]:
        # An empty mapping under a key is a leaf, "{}".
        secret = is_secret_key(own(key))
        pairs = None if secret else _pairs(value)
        return value, pairs if pairs or value is params else None

    for key, value in _leaves(prefix or None, params, ".", look):
        if type(value) is _Refused:
            text = str(value)
        elif _hides(own(key), value):
            text = REDACTED
        else:
            text = _visible(redact_text(describe(value)))
        strings[_unused(legal_key(key), used)] = text
    return strings


# MLflow itself refuses the colon on Windows, where a key may become a file's name.
_ILLEGAL = re.compile(r"[^/\w.\- ]" if os.name == "nt" else r"[^/\w.\- :]")


def legal_key(name: str) -> str:
    """`name` as MLflow accepts it: at most 250 legal characters and a normalised path.

    What is not legal becomes `_`; a name cut short ends with a hash of the whole.
    """
    parts = _ILLEGAL.sub("_", name).split("/")
    parts = ["_" * max(len(part), 1) if part in ("", ".", "..") else part for part in parts]
    key = "/".join(parts)
    if key.startswith(".."):
        key = "__" + key[2:]
    if len(key) <= _KEY_LIMIT:
        return key
    digest = hashlib.blake2s(name.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{key[: _KEY_LIMIT - 9]}_{digest}"


def _unused(key: str, used: dict[str, int]) -> str:
    """`key`, or the first of `key-2`, `key-3`, … that is free."""
    name = key
    while name in used:
        used[key] += 1
        suffix = f"-{used[key]}"
        name = key[: _KEY_LIMIT - len(suffix)] + suffix
    used[name] = 1
    return name


def clip(text: str, limit: int) -> str:
    """`text` in at most `limit` characters; if cut, the end says how many are missing."""
    if len(text) <= limit:
        return text
    kept = limit - len(f"… [{len(text):,} characters more]")
    if kept < 0:
        return "…"[:limit]
    return f"{text[:kept]}… [{len(text) - kept:,} characters more]"


def _visible(text: str) -> str:
    """Without what databases and HTTP refuse: NUL and lone surrogates, as visible escapes."""
    return re.sub("[\x00\ud800-\udfff]", lambda m: ascii(m[0])[1:-1], text)


# --- Secrets -----------------------------------------------------------------------------------


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRET_WORDS = _words(
    "password passwords passwd pwd passphrase secret secrets credential credentials creds auth"
    " authorization bearer cookie cookies apikey apikeys apitoken authtoken accesstoken accesskey"
    " secretkey privatekey clientsecret"
)
_SECRET_KEYS = _words(  # "… key"; a key alone sorts, seeds or looks up
    "api access account anthropic auth deploy encryption master openai private secret signing ssh"
    " subscription"
)
_SECRET_TOKENS = _words(  # "… tokens"; other tokens in the plural are counted
    "access api auth bearer oauth personal refresh secret session"
)
_TEXT_TOKENS = _words(  # "… token" of a language model or a price
    "additional adversarial answer assistant audio begin bod boi bos boundary class cls decoder"
    " end eod eoi eom eos eot extra first image img input label last mask negative new newline"
    " next no output pad padding per positive prefix prev previous prompt sep separator single"
    " special start stop suffix system target text think tool trigger unk unknown video vision"
    " word yes"
)
_COUNTS = _words("max min n num total")


def is_secret_key(key: str) -> bool:
    """Whether the last words of `key` name a secret: `db.password`, `apiKey`, `X-Auth-Token`.

    The tokens of a language model (`max_tokens`, `eos_token`, `token_count`) are none.
    """
    *_, before, last = ["", "", *(word.lower() for word in _WORD.findall(key))]
    if before in _COUNTS:
        return False
    if last in ("key", "keys"):
        return before in _SECRET_KEYS
    if last == "tokens":
        return before in _SECRET_TOKENS
    return before not in _TEXT_TOKENS if last == "token" else last in _SECRET_WORDS


def _hides(key: str, value: object) -> bool:
    """A secret's key with something to hide: that there is none, or that one is used, is none."""
    return value is not None and value is not True and value is not False and is_secret_key(key)


# Linear in the text, each for its own reason: a repetition is bounded, or cannot run across the
# place where the next match might start. Longer runs start only at a word's own start.
_LOOKS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (
            r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----[^-]*(?:-(?!----)[^-]*)*"
            r"(?:-----END [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----)?",
            REDACTED,
        ),
        # SQLAlchemy accepts `/`, `?` and `#` in a password; what is no port is taken for one.
        (r'://[^\s/?#@:"<>]{0,200}:(?!\d*(?:[/?#]|$))[^\s@"<>]{0,200}@', f"://{REDACTED}@"),
        (r'://[^\s/?#"<>]*@', f"://{REDACTED}@"),
        (
            r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
            r"|hf_[A-Za-z0-9]{25,}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,}|xox[a-z]-[\w-]{10,}"
            r"|A[KS]IA[A-Z0-9]{16}|AIza[\w-]{35}|dapi[0-9a-f]{32})",
            REDACTED,
        ),
        (r"(?<![\w-])sk-[\w-]{0,200}?[A-Za-z0-9]{16}[\w-]*", REDACTED),
        (r"(?<![\w-])eyJ[\w-]{5,}\.[\w-]{5,}(?:\.[\w-]*){1,3}", REDACTED),
        (r"(?<=[?&]sig=)[^\s&\"']+", REDACTED),
        (
            r"\b(Bearer +|(?i:bearer) +(?=[\w.~+/=-]{16}))(?!(?:tokens?|auth\w*)\b)[\w.~+/=-]+",
            rf"\1{REDACTED}",
        ),
    )
]
_BASIC = re.compile(r"\b(Basic +)([A-Za-z0-9+/]{4,})=*")
_NAME = re.compile(r"""(?<![\w.-])([\w.-]+)(\\*["'])?[ \t]{0,3}([=:])=?[ \t]{0,3}""")
_VALUE = re.compile(
    r"""(?i:(?:basic|bearer|digest|token)[ ]+)?(?:
    "[^"\\]*(?:\\.[^"\\]*)*" | '[^'\\]*(?:\\.[^'\\]*)*' | \\+"[^"\\]*\\+"
    | (?:\([^()]*\) | \[[^\[\]]*\] | \{[^{}]*\})[^\s&;,"')\]}]*
    | (?P<bare>(?:\\*["'])?[^\s&;,"']+) )""",
    re.VERBOSE | re.DOTALL,
)
_QUOTE = re.compile(r"""\\*["']""")
_NO_SECRETS = _words("None True False null true false")


def redact_text(text: str) -> str:
    """`text` without userinfo in URLs, well-known tokens, private keys and `password=…` values."""
    # One removal may complete another, as a quoted value inside a URL does; once is the rule.
    for _ in range(4):
        before = text
        for look, replacement in _LOOKS:
            text = look.sub(replacement, text)
        text = _redact_pairs(_BASIC.sub(_redact_basic, text))
        if text == before:
            break
    return text


def _redact_basic(match: re.Match[str]) -> str:
    # "Basic Iterative Method" is an attack: only base64 of "user:password" is a secret.
    encoded = match[2][: len(match[2]) // 4 * 4]
    return match[1] + REDACTED if b":" in base64.b64decode(encoded) else match[0]


def _redact_pairs(text: str) -> str:
    kept, end = [], 0
    for name in _NAME.finditer(text):
        if name.start() < end or not is_secret_key(name[1]):
            continue
        # `token: int` is code; a header's name has a hyphen or is one of these.
        if name[3] == ":" and not (
            name[2] or "-" in name[1] or name[1].lower() in ("authorization", "cookie", "password")
        ):
            continue
        match = _VALUE.match(text, name.end())
        value = match[0] if match else ""
        if match and match["bare"]:
            value = value.rstrip(")]}")  # the bracket that closes `f(token=x)` is not the value's
        if value and value not in _NO_SECRETS:
            quote = _QUOTE.match(value)
            mark = f"{quote[0]}{REDACTED}{quote[0]}" if quote else REDACTED  # JSON stays JSON
            kept += [text[end : name.end()], mark]
            end = name.end() + len(value)
    return "".join([*kept, text[end:]])


def redact_argv(argv: Sequence[str]) -> str:
    """A command line as one types it in a shell, secrets redacted."""
    shown = []
    hidden = False
    for argument in map(_visible, argv):
        name, equals, value = argument.partition("=")
        secret = re.fullmatch(r"[\w.\- ]+", name) is not None and is_secret_key(name)
        if hidden and not argument.startswith("-"):
            shown.append(REDACTED)
        elif secret and value and value.strip() not in _NO_SECRETS:
            shown.append(f"{name}={REDACTED}")
        else:
            shown.append(redact_text(argument))
        hidden = secret and not equals and name.startswith("-")
    return shlex.join(shown)


# --- Results -> metrics ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class MetricValues:
    """What a result holds, by slash-joined legal keys in the order given.

    `numbers` are builtin floats, NaN and infinities among them. `arrays` are nested lists (a frame:
    a dictionary of columns) that JSON takes, with "NaN", "Infinity" and "-Infinity" as strings.
    `refused` says in a few words why a key is neither.
    """

    numbers: dict[str, float]
    arrays: dict[str, Any]
    refused: dict[str, str]


def metric_values(
    results: object, *, convert: Callable[[object], object] | None = None
) -> MetricValues:
    """Numbers and arrays of any result; what is neither is refused by name, nothing raises.

    `convert` is asked first about every foreign object at any depth: it returns a mapping, number
    or array in its place, or None for "not mine".
    """
    found = MetricValues({}, {}, {})
    used: dict[str, int] = {}
    known = functools.partial(_converted, convert=convert)
    left = [_ARRAY_VALUES]

    def look(_: str, value: Any) -> tuple[Any, _Members]:
        value = known(value)
        return value, _metric_members(value, known)

    for key, value in _leaves(None, results, "/", look):
        name = _unused(legal_key(key or "value"), used)
        try:
            plain = _plain(value, left)
            if issubclass(type(plain), (list, tuple, range, deque, dict)):
                found.arrays[name] = _json(plain, left, known)
            else:
                found.numbers[name] = _number(plain)
        except _Refused as why:
            found.refused[name] = str(why)
        except Exception as error:  # noqa: BLE001 - a foreign array may raise anything
            found.refused[name] = _reason(value, error)
    return found


def _reason(value: object, error: Exception) -> str:
    return clip(f"<{_type_name(type(value))}>: {redact_text(describe(error))}", 200)


def _converted(value: Any, convert: Callable[[object], object] | None) -> Any:
    for _ in range(8):  # a converter that always answers would otherwise never end
        kind = type(value)
        builtin = value is None or issubclass(
            kind, (numbers.Number, Decimal, str, bytes, Mapping, list, tuple, _Refused)
        )
        if convert is None or (builtin and not hasattr(kind, "_fields")):
            return value
        try:
            replacement = convert(value)
        except Exception as error:  # noqa: BLE001 - a user's converter: its error is the reason
            return _Refused(_reason(value, error))
        if replacement is None or replacement is value:
            return value
        value = replacement
    return value


def _metric_members(value: Any, known: Callable[[Any], Any]) -> _Members:
    kind = type(value)
    if _is_series(kind):
        # An index that only counts names nothing: that series is an array.
        return None if type(value.index).__name__ == "RangeIndex" else list(value.items())
    if not issubclass(kind, (list, tuple)) or _has_names(kind):
        return _pairs(value)
    items = [known(item) for item in value]
    if not any(_has_names(item) or _is_series(item) for item in set(map(type, items))):
        return None
    return [(None, items[0])] if len(items) == 1 else list(enumerate(items))


def _is_series(kind: type) -> bool:
    named = all(hasattr(kind, name) for name in ("shape", "items", "index"))
    return named and not hasattr(kind, "columns")


def _plain(value: Any, left: list[int]) -> Any:
    """Builtins of an array, frame or 0-d array; anything else as it is."""
    if not _is_array(value):
        return value
    if hasattr(type(value), "columns") and hasattr(type(value), "items"):
        used: dict[str, int] = {}
        return {_unused(_key_text(name, "/"), used): column for name, column in value.items()}
    if math.prod(value.shape) > left[0]:
        raise _Refused(f"an array of shape {tuple(value.shape)}: too large")
    for step in ("detach", "cpu"):
        if hasattr(type(value), step):
            value = getattr(value, step)()
    if getattr(getattr(value, "dtype", None), "kind", "") in ("m", "M"):  # dates, durations
        if tuple(value.shape) == ():
            raise _Refused(f"<{_type_name(type(value))}>")
        value = value.astype(str)  # `.tolist()` of nanoseconds is bare integers
    if tuple(value.shape) == ():
        return value.item()
    return value.tolist()


def _number(value: Any) -> float:
    kind = type(value)
    if kind is _Refused:
        raise value
    if issubclass(kind, float):
        return float.__float__(value)
    if issubclass(kind, (numbers.Real, Decimal)):
        try:
            return float(value)
        except OverflowError:
            raise _Refused("too large for a float") from None
    if value is None:
        raise _Refused("None")
    if issubclass(kind, str):
        raise _Refused(f"a string: {clip(redact_text(str.__str__(value)), 60)!r}")
    raise _Refused("a complex number" if issubclass(kind, complex) else f"<{_type_name(kind)}>")


def _json(value: Any, left: list[int], known: Callable[[Any], Any], depth: int = 0) -> Any:
    """`value` in JSON's own builtins, `left` values at the most; refuses what JSON has not."""
    kind = type(value)
    if kind is float:
        return value if math.isfinite(value) else _INFINITE[repr(value)]
    if value is None or kind is bool or (kind is int and -(2**63) <= value < 2**64):
        return value
    if depth > _ARRAY_DEPTH:
        raise _Refused("<nested too deep>")
    if kind is not list and (plain := _plain(known(value), left)) is not value:
        return _json(plain, left, known, depth + 1)
    pairs = None if kind is list else _pairs(value)
    if pairs is not None:
        used: dict[str, int] = {}
        names = [_unused(_visible(_key_text(name, "/")), used) for name, _ in pairs]
        inner = _json([item for _, item in pairs], left, known, depth + 1)
        return dict(zip(names, inner, strict=True))
    if issubclass(kind, (list, tuple, range, deque)):
        left[0] -= len(value)
        if left[0] < 0:
            raise _Refused(f"more than {_ARRAY_VALUES:,} values in one result")
        return [_json(item, left, known, depth + 1) for item in value]
    if issubclass(kind, str):
        return _visible(str.__str__(value))
    if issubclass(kind, (date, time, timedelta)):
        return str(value)
    return None if kind.__name__ == "NAType" else _json(_number(value), left, known, depth + 1)


_INFINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
