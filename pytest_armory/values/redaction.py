"""What a secret looks like, by its name or in a text, and what stands in its place."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

REDACTED = "[redacted]"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRET_WORDS = _words(
    "password passwords passwd pwd passphrase secret secrets credential credentials creds auth"
    " authorization bearer cookie cookies apikey apikeys apitoken authtoken accesstoken accesskey"
    " secretkey privatekey clientsecret passcode csrf"
)
_QUALIFIERS = _words("v prod production dev staging confirm confirmation value json encoded raw")
_SECRET_PASSES = _words("admin db database ftp mail root sftp smtp ssh user")
_SECRET_KEYS = _words(  # "… key"; a key alone sorts, seeds or looks up
    "api access account anthropic auth deploy encryption license master openai private secret"
    " signing ssh subscription"
)
_SECRET_TOKENS = _words(  # "… tokens"; other tokens in the plural are counted
    "access api auth bearer oauth personal refresh secret session"
)
_TEXT_TOKENS = _words(  # "… token" of a language model or a price
    "additional adversarial answer assistant audio begin blank boa bod boe boi bos boundary break"
    " class cls col column ctc decoder delay delimiter document dummy duration empty end endoftext"
    " eoa eod eoe eoi eom eos eot extra fill fim first gist global group header human image img"
    " infer input instruction label lang language last line mask masked memory message middle"
    " negative new newline next no notimestamps output pad padding patch per placeholder positive"
    " prefix prev previous prompt query question reasoning register response role row sentence sep"
    " separator sequence single soft sot space special speech start stop suffix system target task"
    " text think thinking tile timestamp timestamps token tool transcribe translate trigger turn"
    " unk unknown utterance video vision whitespace word yes …"
)
_COUNTS = _words("max min n num total")


_TEXT_TOKEN = re.compile(
    r"\s*[▁Ġ]?(?:<{1,2}[^<>\s]{1,60}>{1,2}|\[[^\[\]\s]{1,60}\]|\{[^{}\s]{1,60}\}|[^\w\s]{1,4}"
    r"|__[A-Za-z]{1,12}(?:_[A-Za-z]{1,12})?__|[a-z]{2,3}_[A-Z][A-Za-z]{1,3}"  # __en__, eng_Latn
    r"|(?:#{1,6} ?)?[A-Z][A-Za-z]{0,14}:)?\s*"  # USER: ### Response:
)
_MANY_DIGITS = 5
_CHANGE = re.compile(r"[A-Za-z](?=[0-9])|[0-9](?=[A-Za-z])")
_MANY_CHANGES = 4


def is_secret(key: str, value: object) -> bool:
    """Whether key and value are a secret, by the key's last words: see :func:`is_secret_key`.

    The look of the value decides where the key is that of some token: `<t>`, `[SEP]`, `USER:` and
    punctuation are a tokenizer's, unless the key says that it gives access; letters and digits at
    random are a secret, although the key is a tokenizer's. None, True and False are no secret.
    """
    if value is None or value is True or value is False:
        return False
    kind = _kind_of_token(key)
    if kind is None or kind in _SECRET_TOKENS or _is_users_name(key):
        return is_secret_key(key)
    if kind in _TEXT_TOKENS:
        return isinstance(value, str) and _is_random(value)
    values = value if isinstance(value, list | tuple) else (value,)
    is_text = all(isinstance(one, str) and _is_text_token(one) for one in values)
    return is_secret_key(key) and not is_text


@lru_cache(maxsize=1024)
def _kind_of_token(key: str) -> str | None:
    """The word before the last one, if that is `token`, "" without one; None for another key."""
    *_, before, last = ["", "", *_words_of(key)]
    return before if last in ("token", "tokens") else None


def _is_text_token(value: str) -> bool:
    if len(value) > 80 or sum(map(str.isdigit, value)) >= _MANY_DIGITS:
        return False
    return _TEXT_TOKEN.fullmatch(value) is not None


def _is_random(value: str) -> bool:
    """Whether a value is one word in which letters and digits alternate, as in `9f8a7b6c5d4e`."""
    is_word = re.fullmatch(r"[\w.+/=-]{10,}", value) is not None
    return is_word and len(_CHANGE.findall(value)) >= _MANY_CHANGES


def _words_of(key: str) -> list[str]:
    """The words of a key in lower case, without qualifiers at its end."""
    words = [word.lower() for word in _WORD.findall(key)]
    while len(words) > 1 and words[-1] in _QUALIFIERS:
        words.pop()
    return words


def is_secret_key(key: str) -> bool:
    """Whether the last words of `key` name a secret: `db.password`, `apiKey`, `X-Auth-Token`.

    The tokens of a language model (`max_tokens`, `eos_token`, `token_count`) do not.
    """
    return _is_users_name(key) or _names_secret(key)


@lru_cache(maxsize=1024)
def _names_secret(key: str) -> bool:
    *_, before, last = ["", "", *_words_of(key)]
    if before in _COUNTS:
        return False
    if last in ("key", "keys"):
        return before in _SECRET_KEYS
    if last == "tokens":
        return before in _SECRET_TOKENS
    if last == "pass":  # else one over the data
        return before in _SECRET_PASSES
    return before not in _TEXT_TOKENS if last == "token" else last in _SECRET_WORDS


_more_names: set[str] = set()


def _is_users_name(key: str) -> bool:
    return bool(_more_names) and key.rpartition(".")[2].casefold() in _more_names


_off: list[bool] = []


@contextmanager
def redacting(names: Iterable[str] = (), parameters: bool = True) -> Iterator[None]:
    """Redact parameters of these names too, inside the context; or redact none.

    Credentials in URIs and in texts are removed in any case.
    """
    added = {name.casefold() for name in names} - _more_names
    _more_names.update(added)
    if not parameters:
        _off.append(True)
    try:
        yield
    finally:
        _more_names.difference_update(added)
        if not parameters:
            _off.pop()


def is_redacting() -> bool:
    """Whether parameters are redacted."""
    return not _off


def hides(key: str, value: object) -> bool:
    """Whether key and value are redacted, as a secret."""
    return not _off and is_secret(key, value)


# Each takes time linear in the text: a repetition is bounded, or cannot match across the place
# where the next match might start. Longer repetitions start only at the start of a word.
_LOOKS = [
    (re.compile(pattern), replacement, marks.split())
    for pattern, replacement, marks in (
        (
            r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----[^-]*(?:-(?!----)[^-]*)*"
            r"(?:-----END [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----)?",
            REDACTED,
            "-----BEGIN",
        ),
        # SQLAlchemy accepts `/`, `?` and `#` in a password; what is not a port is taken for one.
        (r'://[^\s/?#@:"<>]{0,200}:(?!\d*(?:[/?#]|$))[^\s@"<>]{0,200}@', f"://{REDACTED}@", "@"),
        (r'://[^\s/?#"<>]*@', f"://{REDACTED}@", "@"),
        (
            r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
            r"|hf_[A-Za-z0-9]{25,}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,}|xox[a-z]-[\w-]{10,}"
            r"|A[KS]IA[A-Z0-9]{16}|AIza[\w-]{35}|dapi[0-9a-f]{32}|[rs]k_(?:live|test)_[A-Za-z0-9]{10,}"
            r"|SG\.[\w-]{16,}\.[\w-]{16,}|gsk_[A-Za-z0-9]{30,}|hvs\.[\w-]{20,}|ya29\.[\w-]{20,}"
            r"|GOCSPX-[\w-]{20,}|dckr_pat_[\w-]{20,}|dop_v1_[0-9a-f]{40,}|shp(?:at|ca|pa|ss)_[0-9a-f]{20,})",
            REDACTED,
            "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ glpat- hf_ npm_ pypi- xox AKIA ASIA AIza dapi"
            " k_live_ k_test_ SG. gsk_ hvs. ya29. GOCSPX- dckr_pat_ dop_v1_"
            " shpat_ shpca_ shppa_ shpss_",
        ),
        (r"(?<![A-Za-z0-9])sk-[\w-]{0,200}?[A-Za-z0-9]{16}[\w-]*", REDACTED, "sk-"),
        (
            r"(?:(?<![\w-])eyJ[\w-]{5,}|(?<=-)eyJ\w{5,})\.[\w-]{5,}(?:\.[\w-]*){1,3}",
            REDACTED,
            "eyJ",
        ),
        (r"(?<=[?&]sig=)[^\s&\"']+", REDACTED, "sig="),
        (r"(?<=[?&]X-Amz-Signature=)[^\s&\"']+", REDACTED, "X-Amz-Signature="),
        (r"(?<=://hooks\.slack\.com/services/)[\w/]+", REDACTED, "hooks.slack.com"),
        (
            r"\b(Bearer +|(?i:bearer) +(?=[\w.~+/=-]{16}))(?!(?:tokens?|auth\w*)\b)[\w.~+/=-]+",
            rf"\1{REDACTED}",
            "",
        ),
    )
]
"""Patterns, what replaces a match, and strings of which each match has one: no mark, any text.

A search for a string takes a hundredth of the time that most of the patterns take.
"""

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
    # One removal may enable another, as for a quoted value inside a URL; mostly one is enough.
    for _ in range(4):
        before = text
        for look, replacement, marks in _LOOKS:
            if not marks or any(mark in text for mark in marks):
                text = look.sub(replacement, text)
        text = _redact_pairs(_BASIC.sub(_redact_basic, _OPTION.sub(_redact_option, text)))
        if text == before:
            break
    return text


_OPTION = re.compile(r"(?<![\w-])--([A-Za-z][\w-]{0,60})([ \t]{1,3})(?![-\s])(\S+)")


def _redact_option(match: re.Match[str]) -> str:
    if not is_secret(match[1], match[3]):
        return match[0]
    return f"--{match[1]}{match[2]}{REDACTED}"


_concealed: set[str] = set()


def conceal(*secrets: str) -> None:
    """Add secrets for :func:`without_concealed`."""
    _concealed.update(secret for secret in secrets if len(secret) > 3)


def without_concealed(text: str) -> str:
    """Text without the credentials of this process: its tokens, and the passwords of its URIs."""
    for secret in _concealed:
        text = text.replace(secret, REDACTED)
    return text


def _redact_basic(match: re.Match[str]) -> str:
    # "Basic Iterative Method" is an attack: only base64 of "user:password" is a secret.
    encoded = match[2][: len(match[2]) // 4 * 4]
    return match[1] + REDACTED if b":" in base64.b64decode(encoded) else match[0]


def _redact_pairs(text: str) -> str:
    kept, end = [], 0
    for name in _NAME.finditer(text):
        if name.start() < end or not (is_secret_key(name[1]) or _kind_of_token(name[1])):
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
        quote = _QUOTE.match(value)
        content = value.removeprefix(quote[0]).removesuffix(quote[0]) if quote else value
        if value and value not in _NO_SECRETS and is_secret(name[1], content):
            mark = f"{quote[0]}{REDACTED}{quote[0]}" if quote else REDACTED  # JSON stays JSON
            kept += [text[end : name.end()], mark]
            end = name.end() + len(value)
    return "".join([*kept, text[end:]])


def redact_argv(argv: Sequence[str]) -> str:
    """A command line as one types it in a shell, secrets redacted."""
    words = []
    option = ""
    for argument in map(visible, argv):
        name, equals, value = argument.partition("=")
        is_name = re.fullmatch(r"[\w.\- ]+", name) is not None
        if option and not argument.startswith("-") and is_secret(option, argument):
            words.append(REDACTED)
        elif is_name and value and value.strip() not in _NO_SECRETS and is_secret(name, value):
            words.append(f"{name}={REDACTED}")
        else:
            words.append(redact_text(argument))
        option = name if is_name and not equals and name.startswith("-") else ""
    return shlex.join(words)


def visible(text: str) -> str:
    """Text with NUL and lone surrogates, which databases and HTTP refuse, as visible escapes."""
    return re.sub("[\x00\ud800-\udfff]", lambda m: ascii(m[0])[1:-1], text)
