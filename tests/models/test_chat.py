"""Prompts as turns of a conversation."""

import copy
import json
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metake.editor import Editor
from metake.errors import MetakeError
from metake.evaluation.counterfact import target_losses
from metake.models.chat import PLAIN, Chat, Frame, described, frame_of
from metake.models.tokens import encode
from metake.presets import settings_for
from metake.prompts import Batch, sample_contexts
from metake.shipped import ASSETS
from tests.scripts import call_here, refused

TEMPLATES = {
    "headed": (
        "{% for m in messages %}<{{ m.role }}>\n{{ m.content }}</s>\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant>\n{% endif %}",
        Frame("<user>\n", "</s>\n<assistant>\n", ""),
    ),
    "bracketed": (
        "{% for m in messages %}{% if m.role == 'user' %}[I] {{ m.content }} [/I]"
        "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}",
        Frame("[I] ", " [/I]", " "),
    ),
    "with a system message": (
        "Be brief.\n{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}",
        Frame("Be brief.\nuser: ", "\nassistant:", " "),
    ),
}


def chat(name="demo", template="headed"):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ASSETS / name)
    tokenizer.chat_template = TEMPLATES[template][0]
    return Chat(tokenizer)


@pytest.mark.parametrize("template", TEMPLATES)
def test_chat_frame_is_that_of_the_template(template):
    """The frame is what the template puts around."""
    tokenizer = chat(template=template)
    assert tokenizer.frame == TEMPLATES[template][1]
    assert described(tokenizer)["before"] == tokenizer.frame.before
    assert described(tokenizer.tokenizer) is None
    assert frame_of(tokenizer.tokenizer) == PLAIN
    assert copy.deepcopy(tokenizer).frame == tokenizer.frame


def test_chat_frames_no_plain_prompt(demo):
    """A plain prompt stands alone and one space before its answer."""
    assert Frame("", "", " ") == Frame() == PLAIN
    row = encode(demo.tokenizer, "The mill", "  dark ")
    assert demo.tokenizer.decode(row.ids) == "The mill dark"
    assert demo.tokenizer.decode(row.answer_ids) == " dark"


words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=8)


@settings(max_examples=40, deadline=timedelta(seconds=20))
@given(st.sampled_from(sorted(TEMPLATES)), st.sampled_from(["demo", "demo-llama"]), words, words, words)
def test_chat_rows_have_the_conversations_tokens(template, name, subject, rest, answer):
    """The template's own rendering is the reference; the tokenizer adds nothing to what it writes."""
    tokenizer = chat(name, template)
    turns = [{"role": "user", "content": f"{subject} {rest}"}, {"role": "assistant", "content": answer}]
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    row = encode(tokenizer, f"{subject} {rest}", answer, (0, len(subject)))
    text = tokenizer.decode(row.ids)
    assert whole.startswith(text)
    assert whole[len(text) :].strip() in ("", "</s>")
    assert tokenizer.decode(row.answer_ids).strip() == answer
    prefix = tokenizer.decode(row.up_to_lookup.ids)
    assert len(prefix) >= len(tokenizer.frame.before) + len(subject) or prefix.endswith("�")
    asked = encode(tokenizer, f"{subject} {rest}")
    assert tokenizer.decode(asked.ids) == tokenizer.frame.before + f"{subject} {rest}" + tokenizer.frame.after
    assert asked.lookup == len(asked.ids) - 1


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        (None, "has no chat template"),
        ("{{ raise_exception('roles only') }}", "fails"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "does not show"),
        ("{% for m in messages %}{{ m.content }} {{ m.content }}{% endfor %}", "does not show"),
        ("{{ messages[1].content }}{{ messages[0].content }}", "does not show"),
        ("{{ messages[0].content }}{{ messages[0].content }}{{ messages[1].content }}", "does not show"),
        ("{{ messages[1].content }}{{ messages[0].content }}{{ messages[1].content }}", "does not show"),
        ("{{ messages[0].content }}{{ messages[1].content }}{{ messages[1].content }}", "does not show"),
        ("{{ raise_exception('a\nb ' + 'x' * 300) }}", r"fails \(a b x{196}\)$"),
    ],
)
def test_chat_refuses_an_unusable_template(template, complaint):
    """A template that cannot be used is refused."""
    tokenizer = chat().tokenizer
    tokenizer.chat_template = template
    with pytest.raises(MetakeError, match=f"^chat: .*{complaint}"):
        Chat(tokenizer)


def test_chat_samples_plain_contexts_for_the_user(demo, records):
    tokenizer = chat()
    contexts = sample_contexts(demo.with_tokenizer(tokenizer), length=4)
    assert contexts == sample_contexts(demo, length=4)
    request = records[0].request
    batch = Batch.build(demo.with_tokenizer(tokenizer), [request], contexts)
    said = tokenizer.decode(batch.edits[1].ids)
    assert said.startswith(f"<user>\n{contexts[0].rstrip(' .')}. {request.text}</s>\n<assistant>\n")


def test_editor_edits_answers_in_a_conversation(demo, statistics_of, records):
    """The same settings on the plain prompt leave the conversation's answer unlikely."""
    request, statistics = records[0].request, statistics_of(demo)
    chosen = settings_for(demo, "memit").updated(
        layers=(2, 3),
        lookup="prompt",
        contexts=(),
        lam=1.0,
        steps=120,
        lr=1.0,
        clamp=None,
        decay=0.0,
        kl=0.0,
    )
    talk = chat(template="with a system message")
    asked = [encode(talk, request.text, request.target_new)]
    losses = {"unedited": target_losses(demo, asked, 512)[0]}
    for name, tokenizer in (("plain", demo.tokenizer), ("chat", talk)):
        with Editor(demo.model, tokenizer, chosen, statistics=statistics) as editor:
            editor.edit(request)
            losses[name] = target_losses(demo, asked, 512)[0]
    assert losses["chat"] < 0.2
    assert min(losses["plain"], losses["unedited"]) > 1


def test_protocol_runs_in_a_conversation(talking, tmp_path):
    data = ASSETS / "world" / "test.json"
    quick = (
        "--model",
        talking,
        "--data",
        data,
        "--edits",
        2,
        "--batch",
        2,
        "--seeds",
        1,
        "--methods",
        "ultraedit",
    )
    call_here("run_zsre.py", *quick, "--chat", "--no-generate", "--out", tmp_path)
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["chat"] == {"before": "Asked: ", "after": "\nAnswered:", "space": " "}
    done = call_here("run_zsre.py", *quick, "--no-generate", "--out", tmp_path, check=False)
    assert done.returncode == 2
    assert "another chat" in done.stderr


def test_load_refuses_chat_without_a_template(tmp_path):
    assert "has no chat template" in refused("run_zsre.py", "--chat", out=tmp_path / "out")
