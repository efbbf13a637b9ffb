"""What a secret looks like, by its name or in a text."""

from __future__ import annotations

import shlex
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_armory.values import (
    REDACTED,
    is_secret_key,
    redact_argv,
    redact_text,
    redacting,
)
from pytest_armory.values.redaction import is_secret

SECRET_KEYS = """
password db.password db_password DB_PASSWORD user_pwd passwd passphrase password1 token hf_token
api_token access_token accessToken GITHUB_TOKEN refresh_token csrf_token access_tokens api_key
apiKey APIKey apikey OPENAI_API_KEY X-Api-Key api.key api_keys secret client_secret clientSecret
aws_secret_access_key access_key private_key credential credentials creds auth http_auth
authorization Proxy-Authorization bearer --password api_key_v2 OPENAI_API_KEY_PROD password_confirm
token_value secret_value db_pass passcode credentials_json license_key csrf
"""


@pytest.mark.parametrize("key", SECRET_KEYS.split())
def test_secret_key(key: str) -> None:
    assert is_secret_key(key)


OTHER_KEYS = """
max_tokens num_tokens max_new_tokens n_tokens tokens stop_tokens special_tokens tokenizer
tokenizer_name token_count token_type token_ids pad_token_id eos_token bos_token pad_token
mask_token image_token max_token price_per_token tokens_per_second first_token_latency author
pass forward_pass num_pass best_value eos_token_value
authors authority key keys sort_key rng_key public_key keyword secretary num_secrets
password_length bypass compass n_passes private access api
end_of_turn_token start_of_turn_token end_of_sentence_token end_of_utterance_token
word_delimiter_token fim_middle_token endoftext_token blank_token response_token notimestamps_token
decoder_start_token_id forced_bos_token_id boi_token boa_token
additional_special_tokens suppress_tokens max_output_tokens
max_completion_tokens completion_tokens cached_tokens reasoning_tokens prompt_cache_key
azure_ad_token_provider allowed_special explicit_n_vocab mergeable_ranks safety_identifier
"""


@pytest.mark.parametrize("key", OTHER_KEYS.split())
def test_no_secret_key(key: str) -> None:
    assert not is_secret_key(key)


TEXT_TOKENS = """
<t> <s> </s> <unk> [PAD] [SEP] <|endoftext|> <|im_start|> <start_of_turn>
<\uff5cbegin▁of\uff5c> ! ## ▁
▁<PRE> Ġ <0x0A> <extra_id_99> <|reserved_special_token_7|> {sep} <image> <<<
eng_Latn zho_Hans en_XX __en__ __en_XX__ USER: Human: <<SYS>> <</SYS>>
"""


@pytest.mark.parametrize(
    "value", [*TEXT_TOKENS.split(), "", " ", "\n\n", "### Response:", [], ["<a>"]]
)
def test_a_tokenizers_token_is_known_by_its_look(value: str | list[str]) -> None:
    for name in ("end_of_clause_token", "my.fooToken", "token", "user_token", "src_lang_token"):
        assert not is_secret(name, value)
    for name in ("password", "api_key", "api_token", "auth_tokens"):  # one may look as it likes
        assert is_secret(name, value)
    if isinstance(value, str) and value.strip():
        assert redact_text(f"f(foo_token={value!r}, n=1)") == f"f(foo_token={value!r}, n=1)"


def test_the_tokens_of_tokenizers_and_their_ids_are_none() -> None:
    """Arguments of transformers' own, whatever their value."""
    for name in ("tile_token", "coarse_infer_token", "semantic_infer_token", "image_break_token"):
        assert not is_secret(name, "TILE")
        assert not is_secret(name, 129_599)


@pytest.mark.parametrize(
    "name", ["system_token", "first.userToken", "assistant_token", "--end-token"]
)
def test_letters_and_digits_at_random_are_no_tokenizers(name: str) -> None:
    secret = "9f8a7b6c5d4e"
    assert is_secret(name, secret)
    assert redact_text(f"f({name.strip('-')}={secret!r}, n=1)").count("[redacted]") == 1
    assert secret not in redact_argv([f"--{name.strip('-')}", secret, f"{name}={secret}"])


@pytest.mark.parametrize("value", ["extra_id_10000", "<|im_start|>", "1.5e-06", "TILE", "resnet50"])
def test_a_tokenizers_token_may_have_digits(value: str) -> None:
    assert not is_secret("image_token", value)
    assert redact_argv(["--image-token", value]).endswith(shlex.quote(value))


def test_a_secret_may_look_like_a_tokenizers_token() -> None:
    for name in ("auth_token", "accessToken", "--api-token"):
        assert is_secret(name, "<secretABC>")
        assert "secretABC" not in redact_text(f"f({name.strip('-')}='<secretABC>')")


@pytest.mark.parametrize(
    "value",
    [
        "abc", "x", "t0k3n", "hf_abc", "<a> b", "<ab12345>", "[redacted]s", f"<{'x' * 70}>", "a<t>",
        ["<a>", "abc"], 123456, {"a": 1}, "Bearer <t>", "!!!!!",
    ],
)  # fmt: skip
def test_any_other_value_of_a_token_is_a_secret(value: object) -> None:
    for name in ("token", "api_token", "foo_token", "access_tokens"):
        assert is_secret(name, value)


def test_names_that_the_user_calls_secret_are_so_whatever_the_value() -> None:
    with redacting(["foo_token"]):
        assert is_secret("a.foo_token", "<t>")
    assert not is_secret("a.foo_token", "<t>")


LETTERS = "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nDEK-Info: x\n\nMIIabc+/=\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("http://user:pass@host:5000/x", "http://[]@host:5000/x"),
        ("at http://user:pass@host, or", "at http://[]@host, or"),
        ("postgresql+psycopg2://u:p@ss@db:5432/ml", "postgresql+psycopg2://[]@db:5432/ml"),
        ("postgresql://u:p/a?s#s@db/ml", "postgresql://[]@db/ml"),
        ("https://ghp@github.com/x", "https://[]@github.com/x"),
        (f"ghp_{LETTERS} x", "[] x"),
        (f"github_pat_{LETTERS}", "[]"),
        (f"glpat-{LETTERS[:20]}", "[]"),
        (f"hf_{LETTERS[:34]}", "[]"),
        (f"sk-{LETTERS}", "[]"),
        (f"sk-proj-a_b-{LETTERS}-z", "[]"),
        (f"test_a[fast-sk-proj-{LETTERS}-1]", "test_a[fast-[]]"),
        ("test_a[0-eyJhbGciOi.eyJzdWIiOi.SflKxwRJSM]", "test_a[0-[]]"),
        ("AKIAIOSFODNN7EXAMPLE", "[]"),
        ("xoxb-1234567890-abc", "[]"),
        ("(eyJhbGciOi.eyJzdWIiOi.SflKxwRJSM)", "([])"),
        (f"a\n{PEM}\nb", "a\n[]\nb"),
        (PEM[:50], "[]"),
        ("Bearer xyz", "Bearer []"),
        ("Basic dXNlcjpwYXNz", "Basic []"),
        ("Authorization: Basic xyz", "Authorization: []"),
        ("'Authorization': 'Bearer xyz', 'a': 1", "'Authorization': '[]', 'a': 1"),
        ("X-Api-Key: abc", "X-Api-Key: []"),
        ("f(x, token=abc)", "f(x, token=[])"),
        ("f(auth=('u', 'p'), n=1)", "f(auth=[], n=1)"),
        ("password=a&n=1", "password=[]&n=1"),
        ("password=a)b c", "password=[] c"),
        ('password="a b" c', 'password="[]" c'),
        ('password="cut', 'password="[]"'),
        ('{"api_key": "a\\"b", "n": 1}', '{"api_key": "[]", "n": 1}'),
        ('{\\"api_key\\": \\"a\\", \\"n\\": 1}', '{\\"api_key\\": \\"[]\\", \\"n\\": 1}'),
        ("Server=x;Pwd=abc;Uid=u", "Server=x;Pwd=[];Uid=u"),
        ("MLFLOW_TRACKING_TOKEN=abc pytest", "MLFLOW_TRACKING_TOKEN=[] pytest"),
        ("assert token == 'x'", "assert token == '[]'"),
        ("https://blob/a?sv=1&sig=abc%3D&se=1", "https://blob/a?sv=1&sig=[]&se=1"),
        ("url=token=abc", "url=token=[]"),
        (f"sk_live_{LETTERS[:24]} hvs.{LETTERS[:24]}", "[] []"),
        (f"SG.{LETTERS[:22]}.{LETTERS[:22]}", "[]"),
        (
            f"https://hooks.slack.com/services/T0/B0/{LETTERS}",
            "https://hooks.slack.com/services/[]",
        ),
        ("https://s3/a?X-Amz-Signature=ab12&x=1", "https://s3/a?X-Amz-Signature=[]&x=1"),
        ("prog --password S3 --epochs 3", "prog --password [] --epochs 3"),
    ],
)
def test_redact_text(text: str, redacted: str) -> None:
    assert redact_text(text) == redacted.replace("[]", REDACTED)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "an ordinary sentence: nothing = nothing",
        "http://localhost:5000/@me",
        "https://medium.com/@user and a@b.c",
        "https://host/path?email=a@b.c",
        "sk-learn-logistic-regression-v2",
        "opus-mt-en-sk-newstest2019-large disk-0123456789abcdef01 task-0123456789abcdef01",
        "Basic Iterative Method",
        "bearer of news; Bearer token missing",
        "def f(token: int, secret: str) -> None",
        "test_token.py::test_auth::x",
        "max_tokens=10 eos_token=</s>",
        "f(end_of_clause_token='<t>', sepToken=\"[SEP]\") foo_token=<|x|> token=!",
        "prog --foo-token <t>",
        "token=None use_auth_token=True f(token=) password=",
        "eyJust.text",
        "prog --max-tokens 5 --auth --epochs 3",
    ],
)
def test_redact_text_leaves(text: str) -> None:
    assert redact_text(text) == text


def test_redact_argv() -> None:
    argv = ["pytest", "--password", "x", "--token=y z", "-o", "password=x", "FOO_TOKEN=x"]
    argv += ["--armory-tracking-uri", "http://u:p@host", "-k", "token and x", "--auth", "-v"]
    argv += ["--foo-token=<t>", "--foo-token=t"]
    argv += ["--header=Authorization: Bearer abc", "a b", "x\udc80", "--max_tokens=5"]
    assert redact_argv(argv) == (
        "pytest --password '[redacted]' '--token=[redacted]' -o 'password=[redacted]'"
        " 'FOO_TOKEN=[redacted]' --armory-tracking-uri 'http://[redacted]@host' -k 'token and x'"
        " --auth -v '--foo-token=<t>' '--foo-token=[redacted]'"
        " '--header=Authorization: [redacted]' 'a b' 'x\\udc80' --max_tokens=5"
    )


REPEATED = r"""
a a- a. A - ) = \ ://a:b ://a:b@ -----BEGIN_PRIVATE_KEY----- sk- sk-a_ eyJaaaaa. eyJ-
-eyJaaaaa. -sk- ghp_ pypi- a=
token= token=" token='\' token=\\ token=( Bearer_ Basic_ password: "password":"x",
"""


@pytest.mark.parametrize("unit", REPEATED.split())
def test_redaction_takes_linear_time(unit: str) -> None:
    text = unit.replace("_", " ") * (50_000 // len(unit))
    begin = time.process_time()
    redact_text(text)
    redact_text(f"token={text}")
    is_secret_key(text)
    assert time.process_time() - begin < 1


SECRETIVE = st.lists(
    st.sampled_from(
        [
            *("://", "@", ":", "/", "?", "#", " ", "=", '"', "'", "\\", "(", ")", "[", "]", "{"),
            *("token", "password", "Authorization", "Bearer ", "Basic ", "a", "5", "&sig=", "-"),
            *("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", REDACTED, "sk-"),
            *(LETTERS, "ghp_", "eyJabcdef.", "dXNlcjpwYXNz", "\n", ",", "X-Api-Key: "),
        ]
    ),
    max_size=25,
).map("".join)


@settings(max_examples=150, deadline=None)
@given(SECRETIVE | st.text())
def test_redaction_is_idempotent(text: str) -> None:
    once = redact_text(text)
    assert redact_text(once) == once
