"""What others may write: good files with hostile changes, and documents of every shape.

`make test` tries the same examples every time, half a minute of them for each file of tests here;
`make fuzz` tries new ones, many more, until its time is over.
"""

import json
import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from workspace.errors import UserError

LONG = bool(os.environ.get("FUZZ"))
CHECKS = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
settings.register_profile(
    "hostile",
    database=None,
    deadline=None,
    derandomize=not LONG,
    max_examples=2000 if LONG else 200,
    print_blob=LONG,
    suppress_health_check=CHECKS,
)
settings.load_profile("hostile")

SNIPPETS = [
    *(b"!!int ''", b"!!timestamp 2026-13-45", b"!!binary x", b"!!python/name:os.system x", b"!a "),
    *(
        b"&a ",
        b"*a",
        b"<<: ",
        b"? ",
        b"- ",
        b": ",
        b"{",
        b"}",
        b"[",
        b"]",
        b"[" * 3000,
        b"{a: " * 99,
    ),
    *(
        b"null",
        b"~",
        b"true",
        b"yes",
        b"NaN",
        b"-Infinity",
        b".inf",
        b"1e999",
        b"9" * 5000,
        b"0x1f",
    ),
    *(b"2026-02-30", b"1:2:3", b"0777", b"1_000", b"-0", b"1e0", b"''", b'""', b"|\n", b">\n"),
    *(b"\0", b'"\\0"', b'"\\u0000"', b'"\\ud800"', b"\x07", b"\x1b[2J", b"\r", b"\t", b"\n---\n"),
    *(b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3", b"\xed\xa0\x80", "\u202e\u0430\u2028".encode()),
    *(b"`" * 4, b"#", b"%YAML 9.9\n", b"%TAG ! x\n", b"...", b"<" * 7 + b" HEAD\n", b"a" * 300),
    *(b"../" * 5, b"/etc/passwd", b"=HYPERLINK(1)", b"\\", b"'", b'"', b",", b"\n"),
]

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**30]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["", "\0", "\ud800", "../..", "/", "a" * 300, "\u202e", "\x1b[2J", "sha256:"]),
    st.sampled_from(["1", "01", "nan", "1e5", "2026-01-01", "`x`", "\n", "é", "v1", "{{x}}"]),
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def changed_text(draw: st.DrawFn, good: bytes) -> bytes:
    """Return a good file with a few changes: cut, doubled, or with what no file should hold."""
    text = good
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 30)))
        piece = draw(
            st.sampled_from(SNIPPETS) | st.binary(max_size=8) | st.just(text[start:end] * 2)
        )
        text = text[:start] + piece + text[end:]
    return text


@st.composite
def changed_document(draw: st.DrawFn, good: Any) -> Any:
    """Return a good document with another value, or none, at one or two of its places."""
    document = json.loads(json.dumps(good))
    for _ in range(draw(st.integers(1, 2))):
        holders = list(_holders(document))
        if not holders:
            break
        holder, key = draw(st.sampled_from(holders))
        if draw(st.booleans()) and draw(st.booleans()):
            del holder[key]
        else:
            holder[key] = draw(DOCUMENTS)
    return document


def _holders(document: Any) -> Any:
    """Yield every list or map in a document with each of its keys."""
    if isinstance(document, dict | list):
        places = list(document) if isinstance(document, dict) else range(len(document))
        for place in places:
            yield document, place
            yield from _holders(document[place])


def files(good: Any) -> st.SearchStrategy[bytes]:
    """Return what may stand in a file, which JSON is and YAML as well, in place of a document."""
    written = json.dumps(good, indent=1).encode()
    whole = DOCUMENTS.map(lambda document: json.dumps(document).encode())
    other = changed_document(good).map(lambda document: json.dumps(document).encode())
    return st.one_of(other, other, changed_text(written), whole, st.binary(max_size=40))


def texts(good: str) -> st.SearchStrategy[bytes]:
    """Return what may stand in a file in place of a text."""
    return st.one_of(changed_text(good.encode()), st.binary(max_size=60))


def value_or_sentence(read: Callable[..., Any], *arguments: Any) -> Any:
    """Return what was read, or None after a sentence that a terminal can show; else fail."""
    try:
        return read(*arguments)
    except UserError as error:
        message = str(error)
        assert message
        assert all(line.isprintable() for line in message.splitlines()), repr(message)
        assert len(message) < 5000, message
        return None
