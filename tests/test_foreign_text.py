"""What others wrote: read by one door, and quoted so that it does no harm."""

import re
import subprocess
from pathlib import Path

import pytest

from delivery.checks.rehearsal_report import changes
from delivery.errors import DeliveryError
from delivery.proposals.config_map import parse_config_map
from delivery.proposals.gate import GateError
from delivery.proposals.release_file import ReleaseFileError, parse_release
from delivery.proposals.run_file import RUN_NAME, Run
from example_release import RELEASE
from workspace import files
from workspace.errors import UserError, reported, said, shown
from workspace.markdown import block, cell, code
from workspace.settings import (
    SMALL,
    Settings,
    SettingsError,
    check,
    parse_json,
    parse_yaml,
    read_json,
    read_yaml,
)

HOSTILE = "\x1b[2J\r\nerror: run `rm -rf ~`\u202e\u2028\x00\x9b"

# -- the door --------------------------------------------------------------------------------------

REFUSED = {
    "a tag": (b"a: !!int ''", "tags are not read"),
    "a date by a tag": (b"a: !!timestamp x", "tags are not read"),
    "bytes": (b"a: !!binary x", "tags are not read"),
    "an object": (b"a: !!python/object/apply:os.system [true]", "tags are not read"),
    "an anchor": (b"a: &b [x]", "anchors"),
    "a bomb": (b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "anchors"),
    "a key twice": (b"a: 1\nb: 2\na: 3", "the key 'a' is there twice"),
    "a list as a key": (b"? [a]\n: b", "a key is not a text"),
    "brackets": (b"[" * 3000, "more than 64 lists and maps"),
    "brackets that close": (b"[" * 3000 + b"]" * 3000, "more than 64 lists and maps"),
    "dashes": (b"- " * 3000, "more than 64 lists and maps"),
    "another encoding": ("a: ü".encode("utf-16"), "is not UTF-8"),
    "no encoding": (b"a: \xff", "is not UTF-8"),
    "a byte order mark": (b"\xef\xbb\xbfa: 1", "byte order mark"),
    "NUL": (b"a: \0", "is not YAML"),
    "NUL as an escape": (b'a: "\\0"', "NUL"),
    "a control sign": (b"a: \x1b[2J", "is not YAML"),
    "a huge number": (b"a: " + b"9" * 5000, "too large a number"),
    "a number without end": (b"a: 1e999", "too large a number"),
    "two documents": (b"a: 1\n---\nb: 2", "is not YAML of one document"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_yaml_that_is_more_than_data_is_refused(fault: str, tmp_path: Path) -> None:
    content, message = REFUSED[fault]
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(SettingsError, match=re.escape(message)) as refusal:
        read_yaml(tmp_path / "params.yaml")
    assert "params.yaml" in str(refusal.value)
    assert str(refusal.value).isprintable()
    with pytest.raises(ReleaseFileError):
        parse_release(content, "model.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"layers": [], "layers": [1]}', "the key 'layers' is there twice"),
        (b"[" * 100_000, "more than 64 lists and maps"),
        (b"[" * 100 + b"]" * 100, "more than 64 lists and maps"),
        ('{"a": 1}'.encode("utf-16"), "is not UTF-8"),
        ('{"a": 1}'.encode("utf-32"), "is not"),
        (b'\xef\xbb\xbf{"a": 1}', "byte order mark"),
        (b'{"a": "\\u0000"}', "NUL"),
        (b'{"a": "\\ud800"}', "half of a character"),
        (b"1" * 5000, "too large a number"),
        (b"-1e999", "too large a number"),
        (b"", "is empty"),
        (b"\0" * 4096, "is not JSON"),
    ],
    ids=lambda item: str(item)[:20],
)
def test_json_that_is_more_than_data_is_refused(
    content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "status.json").write_bytes(content)
    with pytest.raises(SettingsError, match=re.escape(message)) as refusal:
        read_json(tmp_path / "status.json")
    assert str(refusal.value).isprintable()


def test_plain_values_are_those_of_yaml_1_2() -> None:
    text = "[yes, 2026-01-01, 12:30:00, 0o17, 1_000, '5', 5, -1.5e-3, true, null, ~, 1e0]"
    found = parse_yaml(text, "it")
    assert found == [
        *("yes", "2026-01-01", "12:30:00", "0o17", "1_000", "5"),
        *(5, -0.0015, True, None, None, 1.0),
    ]
    assert parse_yaml("2026: {1: a, null: b}", "it") == {"2026": {"1": "a", "null": "b"}}


def test_a_file_is_read_up_to_its_limit_only(tmp_path: Path) -> None:
    path = tmp_path / "origin.json"
    path.write_bytes(b" " * (SMALL - 2) + b"{}")
    assert read_json(path, SMALL) == {}
    path.write_bytes(b" " * SMALL + b"{}")
    with pytest.raises(SettingsError, match="too large: at most 65,536 bytes"):
        read_json(path, SMALL)
    with pytest.raises(SettingsError, match="too large"):
        read_json(Path("/dev/zero"), SMALL)
    with pytest.raises(ReleaseFileError, match="too large"):
        parse_release(RELEASE.to_yaml() + "#" * SMALL, "model.yaml")


def test_what_is_not_a_number_is_no_setting() -> None:
    class Limits(Settings):
        floor: float

    with pytest.raises(SettingsError, match="floor is nan"):
        check(Limits, parse_json('{"floor": NaN}', "it"), "it")


@pytest.mark.parametrize(
    "image",
    [
        "registry.example.com/dіgits",  # a Cyrillic letter
        "registry.example.com/digits\u202e",
        "registry.example.com/`id`",
        "registry.example.com/$(id)",
        "registry.example.com/digits\u00a0",
        "--output=x",
    ],
    ids=["look-alike", "direction", "backticks", "dollar", "blank", "option"],
)
def test_an_image_is_named_in_plain_ascii(image: str) -> None:
    text = RELEASE.to_yaml().replace("registry.example.com/digits", image)
    with pytest.raises(ReleaseFileError, match="image is") as refusal:
        parse_release(text, "model.yaml")
    assert str(refusal.value).isprintable()


HIDDEN = {
    "a return": "# harmless\r  version: '9'",
    "a next line": "# harmless\x85  version: '9'",
    "a line separator": "# harmless\u2028  version: '9'",
    "another direction": "# harmless \u202e'9'",
    "no width": "# harmless\u200b",
}


@pytest.mark.parametrize("line", HIDDEN.values(), ids=HIDDEN.keys())
def test_a_release_file_hides_nothing_from_a_reviewer(line: str) -> None:
    with pytest.raises(ReleaseFileError) as refusal:
        parse_release(f"{RELEASE.to_yaml()}{line}\n".replace('  version: "8"\n', ""), "model.yaml")
    assert str(refusal.value).isprintable()
    good = RELEASE.to_yaml() + "# approved by Zoë\n"
    assert parse_release(good, "model.yaml") == RELEASE
    assert parse_release(good.replace("\n", "\r\n"), "model.yaml") == RELEASE


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("apiVersion: v1", "apiVersion: v2"),
        ("apiVersion: v1\n", ""),
        ("  name: ", "  namespace: kube-system\n  name: "),
        ("  name: ", "  annotations: {argocd.argoproj.io/hook: PreSync}\n  name: "),
        ("data:\n  v", "binaryData: {version: OQ==}\ndata:\n  v"),
    ],
)
def test_a_release_file_says_no_more_than_its_values(old: str, new: str) -> None:
    text = RELEASE.to_yaml()
    assert old in text
    with pytest.raises(ReleaseFileError, match="is not one ConfigMap named model-release with"):
        parse_release(text.replace(old, new, 1), "model.yaml")


@pytest.mark.parametrize("value", ["8", "08", "null", "2026-01-01", "1e3", "yes", "1111"])
def test_a_value_without_quotes_is_refused_in_a_run_file_too(value: str) -> None:
    run = Run(run=8, image=RELEASE.image, nodes=2, commit="1" * 40)
    text = run.to_yaml().replace('run: "8"', f"run: {value}")
    with pytest.raises(SettingsError, match=f"run is {value}, not text"):
        parse_config_map(Run, text, RUN_NAME, "run.yaml")


# -- quotations ------------------------------------------------------------------------------------


def test_no_message_carries_signs_that_a_terminal_obeys(capsys: pytest.CaptureFixture) -> None:
    def fail() -> None:
        raise DeliveryError(f"the registry says {HOSTILE}")

    assert reported(fail) == 1
    printed = capsys.readouterr().err
    assert printed.endswith("\n")
    assert printed[:-1].isprintable()
    assert printed.startswith(r"error: the registry says \x1b[2J\r\nerror")


def test_a_report_of_several_lines_keeps_them() -> None:
    assert str(GateError("refused:", f"  - {HOSTILE}")).count("\n") == 1


def test_an_endless_message_is_cut_in_the_middle() -> None:
    message = str(UserError(f"it is {'x' * 100_000}: mend it"))
    assert len(message) < 2100
    assert message.startswith("it is")
    assert message.endswith("mend it")


@pytest.mark.parametrize(
    "error",
    [
        OSError("disk full\x1b"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"),
        subprocess.CalledProcessError(3, "git"),
        subprocess.TimeoutExpired("git", 3),
        MemoryError(),
        RecursionError("too deep"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_failures_of_any_program_are_a_sentence(
    error: Exception, capsys: pytest.CaptureFixture
) -> None:
    def fail() -> None:
        raise error

    assert reported(fail) == 1
    printed = capsys.readouterr().err
    assert re.fullmatch(r"error: .+\n", printed)
    assert printed[:-1].isprintable()


def test_a_mistake_of_ours_stays_a_traceback() -> None:
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        reported(fail)


def test_values_and_reasons_are_short_and_have_no_command() -> None:
    assert len(shown("x" * 1000)) == 81
    assert said(HOSTILE) == r"\x1b[2J error: run 'rm -rf ~'\u202e \x00\x9b"
    assert said("a" + "x" * 1000 + "z") == f"a{'x' * 199} … {'x' * 199}z"
    for quoted in (shown(HOSTILE), said(HOSTILE)):
        assert quoted.isprintable()
        assert "`" not in quoted


def test_a_fence_is_longer_than_any_that_it_holds() -> None:
    diff = "+ a: 1\n+```\n+# a title\n+`````\x1b[2J"
    text = changes(diff)
    assert text.startswith("``````diff\n+ a: 1\n+```\n")
    assert text.endswith(r"\x1b[2J" + "\n``````")
    assert block("a") == "```\na\n```"
    assert code("a``b`") == "``` a``b` ```"
    assert code("a") == "`a`"


def test_a_cell_is_one_line_without_markup() -> None:
    assert cell("# a\n| b | <img src=x> &amp; ~~c~~ \x1b") == (
        r"\# a \| b \| \<img src=x\> \&amp; \~\~c\~\~ \\x1b"
    )


# -- power losses ----------------------------------------------------------------------------------


def test_a_folder_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft, done = tmp_path / "draft", []
    (draft / "inner").mkdir(parents=True)
    (draft / "inner/file").write_text("content")
    monkeypatch.setattr(files, "sync", lambda path: done.append((path.name, path.exists())))
    files.publish(draft, tmp_path / "place")
    assert {name for name, _ in done[:-1]} == {"file", "inner", "draft"}
    assert done[-1] == (tmp_path.name, True)
    assert (tmp_path / "place/inner/file").read_text() == "content"
