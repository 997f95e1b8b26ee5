"""Files are UTF-8 whatever the locale, and no character ends a command because a terminal cannot show it."""

import ast
import codecs
import io
import json
import sys
from pathlib import Path

import pytest

from metake.console import command
from metake.errors import MetakeError
from metake.files import read_json, read_text, write_json, write_text
from metake.report.tables import render

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [
    path
    for room in ("metake", "experiments", "theory", "verification")
    for path in sorted((ROOT / room).rglob("*.py"))
]


def unnamed(source: str) -> list[int]:
    """Lines that open a text file or start a process without naming an encoding."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        options = {keyword.arg: keyword.value for keyword in node.keywords}
        if method in ("read_text", "write_text"):  # of a path; a path among the arguments is files.py's
            plain = len(node.args) == (method == "write_text")
        elif method == "open" or (isinstance(node.func, ast.Name) and node.func.id == "open"):
            given = [*node.args, *options.values()]
            plain = not any(isinstance(a, ast.Constant) and "b" in str(a.value)[:3] for a in given)
        else:
            texts = [options.get(name) for name in ("text", "universal_newlines")]
            plain = any(isinstance(value, ast.Constant) and value.value is True for value in texts)
        if plain and "encoding" not in options and None not in options:
            found.append(node.lineno)
    return found


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        ("path.read_text()", True),
        ("path.write_text(x)", True),
        ("open(p)", True),
        ("path.open('w')", True),
        ("subprocess.run(c, text=True)", True),
        ("path.read_text(encoding='utf-8')", False),
        ("read_text(path)", False),
        ("open(p, 'rb')", False),
        ("path.open(mode='wb')", False),
    ],
)
def test_unnamed_finds_calls_without_an_encoding(line, refused):
    assert bool(unnamed(line)) == refused


def test_files_are_opened_with_an_encoding():
    assert not [f"{path}:{line}" for path in SOURCES for line in unnamed(path.read_text(encoding="utf-8"))]


@pytest.fixture
def latin(monkeypatch):
    """A locale whose encoding is Latin-1, as far as files opened by Python can tell."""
    plain = io.text_encoding
    monkeypatch.setattr(
        io, "text_encoding", lambda given, level=2: "latin-1" if given is None else plain(given, level)
    )
    assert Path(__file__).read_text() != Path(__file__).read_text(encoding="utf-8"), "José"


def test_files_are_utf8_whatever_the_locale(latin, tmp_path):
    write_text(tmp_path / "a.txt", "José 東京")
    assert (tmp_path / "a.txt").read_bytes() == "José 東京".encode()
    assert read_text(tmp_path / "a.txt") == "José 東京"
    (tmp_path / "a.json").write_bytes('["José 東京"]'.encode())
    assert read_json(tmp_path / "a.json") == ["José 東京"]
    write_json(tmp_path / "b.json", ["José"])
    assert read_json(tmp_path / "b.json") == ["José"]


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
def test_read_text_takes_byte_order_marks(tmp_path, mark, encoding):
    path = tmp_path / "a.json"
    path.write_bytes(mark + '["José"]'.encode(encoding))
    assert read_json(path) == ["José"]
    assert read_text(path) == '["José"]'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'["Jos\xe9"]', "save it as UTF-8"),
        (codecs.BOM_UTF16_LE + b"a", "save it as UTF-8"),
        (b"[" * 200_000, "nested too deep"),
        (b"1" * 10_000, "not JSON"),
    ],
)
def test_read_json_refuses_bytes_that_are_no_text(tmp_path, content, said):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(MetakeError) as caught:
        read_json(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii"])
def test_console_escapes_what_the_terminal_cannot_show(monkeypatch, encoding):
    out, errors = io.TextIOWrapper(io.BytesIO(), encoding), io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", errors)

    @command("metake")
    def main():
        print("José lives in 東京")
        raise MetakeError("東京: unknown")

    with pytest.raises(SystemExit):
        main()
    out.flush()
    errors.flush()
    assert "\\u6771\\u4eac" in out.buffer.getvalue().decode(encoding)
    assert errors.buffer.getvalue().decode(encoding).startswith("metake: error: \\u6771\\u4eac: unknown")


def test_write_text_escapes_surrogates(tmp_path):
    """A text that UTF-8 cannot hold is escaped."""
    write_text(tmp_path / "a.md", "caf\udce9")  # from the name of a folder in another encoding
    assert (tmp_path / "a.md").read_text(encoding="utf-8") == "caf\\udce9"
    write_json(tmp_path / "a.json", ["caf\udce9"])
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == ["caf\udce9"]


def test_table_uses_lines_that_the_terminal_can_show(monkeypatch):
    assert "┏" in render("t", ["a"], [["b"]])
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "cp1252"))
    assert render("t", ["a"], [["b"]]).isascii()
