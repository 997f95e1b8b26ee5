"""Public functions describe their arguments."""

from tests.documented import documented, functions_of, is_pending, share

SOURCE = '''
def good(a, *, b=1):
    """Value.

    Args:
        a: first, with
            a second line.
        b: second.
    """

def bad(a, b):
    """Value.

    Args:
        a: first.

    Raises:
        b: not an argument.
    """

def _private(a): ...
def without(): ...

class Box:
    def method(self, x): ...
    def two(self, a, *rest):
        """Value.

        Args:
            a, *rest: both.
        """
'''


def test_functions_of_finds_arguments_without_description():
    found = {function.name: function.missing for function in functions_of(SOURCE)}
    assert found == {"good": (), "bad": ("b",), "Box.method": ("x",), "Box.two": ()}
    assert share(functions_of(SOURCE)) == 0.5


def test_functions_of_leaves_out_commands_alone():
    source = "def edit(model): ...\ndef check(out): ..."
    assert [f.name for f in functions_of(source, "metake/commands/edit.py")] == ["check"]
    assert [f.name for f in functions_of(source, "metake/editor.py")] == ["edit", "check"]


def test_public_functions_of_clean_files_describe_their_arguments():
    """At least 95% of those in files without an exemption in pyproject.toml."""
    done = [f for file, functions in documented().items() if not is_pending(file) for f in functions]
    assert len(done) > 50
    assert share(done) >= 0.95, [f"{f.file}: {f.name}" for f in done if f.missing]
