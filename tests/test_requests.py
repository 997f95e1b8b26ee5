"""Requests keep their texts as they are, and a batch asks for every edit once."""

import warnings
from dataclasses import replace

import pytest

from metake.answers import Answer
from metake.data.records import Record
from metake.errors import MetakeError
from metake.prompts import Batch
from metake.requests import EditRequest, check_texts, distinct

ASKED = EditRequest("{} lives in", "Ada", "Oslo")


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("In {x}, Ada is", "In {x}, {} is"),
        ("In Python {} is empty, says Ada", "In Python {} is empty, says {}"),
        (" {} Ada {} Ada", "{} {} {} Ada"),
        ("Ada {y} {", "{} {y} {"),
    ],
)
def test_edit_request_keeps_literal_braces_of_a_prompt(text, prompt):
    """Literal braces of a complete prompt survive."""
    for request in (EditRequest.from_text(text, "Ada", "b"), EditRequest.parse(text, "Ada", "b")):
        assert request.prompt == prompt
        assert request.text == text.strip()
        assert request.text[request.start :].startswith("Ada")
        assert replace(request, target_new="c").text == text.strip()


def test_edit_request_takes_a_gap_as_template_without_subject():
    """A prompt with a gap is a template unless it names the subject."""
    assert EditRequest.parse("In {x} {} lives", "Ada", "b").text == "In {x} Ada lives"
    assert EditRequest.parse("{} and Adam live in", "Ada", "b").text == "Ada and Adam live in"
    with pytest.raises(MetakeError, match="holds 2 gaps"):
        EditRequest.parse("{} and {}", "Ada", "b")


def test_edit_request_keeps_braces_up_to_the_tokens(demo):
    """Literal braces reach the tokens with the subject at its place."""
    request = EditRequest.from_text("In {} and {x} Ada is", "Ada", "potter")
    for row in Batch.build(demo, [request], ("The {} mill", "It rains")).edits:
        assert demo.tokenizer.decode(row.ids).endswith("In {} and {x} Ada is potter")
        assert demo.tokenizer.decode(row.up_to_lookup.ids).endswith("In {} and {x} Ada")


WRONG = (1, None, ["Ada"], {"a": 1}, b"Ada", 2.5)


@pytest.mark.parametrize("make", [EditRequest, EditRequest.from_text, EditRequest.parse])
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("at", range(3))
def test_edit_request_names_a_field_of_no_text(make, wrong, at):
    fields = ["{} is Ada" if make is EditRequest else "Ada is", "Ada", "x"]
    fields[at] = wrong
    with pytest.raises(
        MetakeError, match=rf": {('prompt', 'subject', 'target_new')[at]} must be a text, not "
    ):
        make(*fields)


@pytest.mark.parametrize(
    "change",
    [{"name": 3}, {"locality_prompts": "Who?"}, {"locality_prompts": (1,)}, {"locality_prompts": None}],
)
def test_edit_request_names_an_optional_field_of_wrong_type(change):
    """A field beside them of a wrong type is named."""
    with pytest.raises(MetakeError, match=f"Ada: {next(iter(change))} must be a t"):
        EditRequest("{} is", "Ada", "x", **change)


def test_edit_request_reports_a_bad_name_with_the_subject():
    """A name that is no text is given with the subject."""
    for make, prompt in ((EditRequest, "{} is"), (EditRequest.from_text, "Ada is")):
        with pytest.raises(MetakeError) as raised:
            make(prompt, "Ada", "x", name=3)
        assert str(raised.value) == "Ada: name must be a text, not int"


def test_edit_request_strips_every_text():
    """Spaces around every text are cut."""
    request = EditRequest("  {} lives in ", " Ada\n", " Oslo ")
    assert (request.prompt, request.subject, request.target_new) == ("{} lives in", "Ada", "Oslo")
    assert (request.start, request.text) == (0, "Ada lives in")


@pytest.mark.parametrize("at", range(3))
def test_edit_request_names_half_a_surrogate_pair(at):
    fields = ["{} is", "Ada", "x"]
    fields[at] += "\ud83d"
    with pytest.raises(MetakeError, match="contains a lone surrogate") as raised:
        EditRequest(*fields)
    assert str(raised.value).encode()


def test_edit_request_name_is_one_line():
    assert EditRequest("{} is", "Ada\nLee", "x").name == "Ada Lee"


def test_edit_request_escapes_control_characters():
    """Control characters do not reach a terminal.

    Names of messages, and questions of printed answers; line ends and other scripts stay.
    """
    assert EditRequest("{} is", "\x1b[31mZoë\x9b2J\x00\n東京", "x").name == r"\x1b[31mZoë\x9b2J\x00 東京"
    assert str(Answer("Q: \x1b[2J\nA:", "b", "\x1b", "b")).startswith("Q: \\x1b[2J\nA:\n  before: '\\x1b'")


def test_distinct_merges_identical_ones_with_a_note():
    with pytest.warns(UserWarning, match=r"2 duplicate requests are ignored \(Ada: 'Ada lives in'"):
        assert distinct([ASKED, EditRequest("{} is", "Bo", "x"), ASKED, ASKED]) == (
            ASKED,
            EditRequest("{} is", "Bo", "x"),
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert distinct(ASKED) == (ASKED,)
        assert len(distinct([ASKED, EditRequest("{} is", "Ada", "Oslo")])) == 2


def test_distinct_warns_of_one_prompt_with_two_subjects():
    """Two edits at two tokens: neither says what the other does; locality prompts alone are no reason to warn."""
    other = EditRequest("Ada {} in", "lives", "Oslo")
    with pytest.warns(
        UserWarning,
        match=r"^'Ada lives in' is requested with the subjects 'Ada' and 'lives'; both are edited$",
    ):
        assert distinct([ASKED, other]) == (ASKED, other)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distinct([ASKED, replace(ASKED, locality_prompts=["Who?"]), EditRequest("{} is", "Ada", "Oslo")])


@pytest.mark.parametrize(
    ("requests", "complaint"),
    [
        (
            [ASKED, replace(ASKED, target_new="Rome")],
            "Ada: 'Ada lives in' has two targets, 'Oslo' and 'Rome'",
        ),
        ([ASKED, EditRequest("Ada {} in", "lives", "Rome")], "has two targets, 'Oslo' and 'Rome'"),
        ([], "none given"),
        ([ASKED, {"prompt": "x"}], "must be EditRequest objects, not dict"),
        ({"prompt": "x"}, "a list of them, not dict"),
        ("Ada", "a list of them, not str"),
        (3, "a list of them, not int"),
        (None, "a list of them, not NoneType"),
    ],
)
def test_distinct_names_batches_that_cannot_be_edited(requests, complaint):
    with pytest.raises(MetakeError, match=complaint) as raised:
        distinct(requests)
    assert "\n" not in str(raised.value)


def test_edit_request_finds_the_subject_as_a_word_first():
    """A subject is found as a word before it is found in one.

    As it is spelled, then in any case, then inside another word.
    """
    for text, prompt, subject in (
        ("Adam and Ada", "Adam and {}", "Ada"),
        ("MacAda and Ada", "MacAda and {}", "Ada"),
        ("ada and Ada", "ada and {}", "Ada"),
        ("Adam and ADA", "Adam and {}", "ADA"),
        ("Adam and Bo", "{}m and Bo", "Ada"),
    ):
        request = EditRequest.from_text(text, "Ada", "b")
        assert (request.prompt, request.subject, request.text) == (prompt, subject, text)


def test_distinct_ignores_the_name():
    """A name is for messages and does not tell requests apart."""
    named = replace(ASKED, name="first")
    assert named == ASKED
    with pytest.warns(UserWarning, match=r"1 duplicate requests are ignored \(first"):
        assert len(distinct(request for request in (named, ASKED))) == 1
    assert EditRequest("{} is", "a" * 81, "b").name == "a" * 77 + "..."
    assert EditRequest("{} is", "a" * 80, "b").name == "a" * 80


def test_distinct_compares_locality_prompts():
    """Locality prompts tell requests apart."""
    assert len(distinct([ASKED, replace(ASKED, locality_prompts=["Who?"])])) == 2
    assert replace(ASKED, locality_prompts=["Who?"]).locality_prompts == ("Who?",)


def test_edit_request_errors_use_its_name():
    """A refused prompt is called by its name."""
    with pytest.raises(
        MetakeError, match=r"^first: subject 'Ada' is not in the prompt 'Who'; spell it as in the prompt"
    ):
        EditRequest.from_text("Who", "Ada", "x", name="first")
    with pytest.raises(
        MetakeError, match=r"^Ada: prompt 'Who' holds 0 gaps; write {} once, for the subject$"
    ):
        EditRequest("Who", "Ada", "x")


def test_check_texts_takes_one_or_several():
    assert check_texts("ask", "question", "Who?") == ["Who?"]
    assert check_texts("ask", "question", (text for text in ("Who?", "Why?"))) == ["Who?", "Why?"]
    for wrong, complaint in (
        ([], "no question given"),
        ({"a": 1}, "question must be a text or a list of texts, not dict"),
        (b"Who?", "question must be a text or a list of texts, not bytes"),
        (3, "question must be a text or a list of texts, not int"),
        (["Who?", 3], "question must be a text, not int"),
    ):
        with pytest.raises(MetakeError) as raised:
            check_texts("ask", "question", wrong)
        assert str(raised.value) == f"ask: {complaint}"


def test_distinct_refuses_a_record():
    """A record is not a request and holds one."""
    with pytest.raises(MetakeError, match=r"must be EditRequest objects, not Record; give its \.request$"):
        distinct([Record(ASKED)])
