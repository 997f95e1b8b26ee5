"""The server of the playground without a browser: one-line errors, its queue, and who may use it."""

import http.client
import io
import json
import socket
import threading
import zipfile
from urllib.parse import urlsplit

import pytest

from metake.deltas import FILE, Delta
from metake.errors import MetakeError
from tests.extras import lacks
from tests.playground.test_session import PLACE

pytest.importorskip("uvicorn", reason="the extra playground is not installed")
FACT = {
    "prompt": PLACE.text,
    "subject": PLACE.subject,
    "target": PLACE.target_new,
    "method": "memit",
    "strength": 0.9,
}


@pytest.fixture(autouse=True)
def _unedited(served):
    """Every test begins and ends with the unedited model."""
    before = served.session.model.fingerprint()
    yield
    if served.session.entries:
        served.session.undo_all()
    assert served.session.model.fingerprint() == before


def revision(served):
    return {"revision": served.session.revision}


def test_steps_edit_undo_and_export(served, tmp_path):
    status, body = served.post("edit", FACT | revision(served))
    assert status == 200
    (edit,) = json.loads(body)["edits"]
    assert edit["before"] == "Semik"
    status, body = served.post("export", {"form": "delta"})
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert archive.namelist() == [FILE]
        archive.extractall(tmp_path)
    assert Delta.load(tmp_path).note["edits"][0]["subject"] == "Vodan Paner"
    status, body = served.post("undo", revision(served))
    assert (status, json.loads(body)["edits"]) == (200, [])


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        (
            "preview",
            FACT | {"subject": "Niels Bohr"},
            "Niels Bohr: subject 'Niels Bohr' is not in the prompt",
        ),
        ("preview", FACT | {"subject": " "}, "subject: it is empty; give it a text"),
        ("preview", FACT | {"target": 3}, "target: must be a text, not int"),
        ("preview", FACT | {"method": "nothing"}, "method: 'nothing' is not offered here"),
        ("preview", FACT | {"strength": 7}, "strength: must be from 0.01 to 0.999, not 7"),
        ("preview", FACT | {"prompt": "Vodan Paner " * 400}, "Vodan Paner: "),
        ("edit", FACT | {"revision": -1}, "the model was changed in another window"),
        ("undo", {"revision": 0}, "undo: the model holds no edit"),
        ("compare", {}, "compare: no prompt given"),
        ("compare", {"own": "word " * 3000}, "compare: a question of"),
        ("export", {"form": "delta"}, "export: the model holds no edit"),
        ("theory", {"part": "trap"}, "lam: must be a number, not None"),
        ("preview", b"{", "the request is not JSON"),
        ("preview", b"[" * 40_000, "the request is not JSON"),
        ("compare", b'{"own": "\\ud800x"}', "the request is not JSON"),
        ("preview", FACT | {"strength": 10**400}, "strength: must be a number"),
        ("preview", b"[]", "the request must be a JSON object"),
        ("preview", b" " * 200_000, "the request is longer than 100000 bytes"),
    ],
)
def test_invalid_input_is_one_line(served, name, content, line):
    """Invalid input is answered with one line, no trace, and the model is as it was."""
    if isinstance(content, dict) and content.get("revision") == 0:
        content = revision(served)
    status, body = served.post(name, content)
    error = json.loads(body)["error"]
    assert (status, "\n" in error, "Traceback" in error) == (400, False, False)
    assert error.startswith(line)


def test_unexpected_error_is_one_line(served, monkeypatch, capfd):
    """An error of the program itself is one line on the page and on stderr."""

    def fail(*_):
        raise ValueError("first\nsecond")

    monkeypatch.setattr(served.session, "plan", fail)
    status, body = served.post("preview", FACT)
    assert status == 500
    assert json.loads(body) == {"error": "internal error: ValueError: first second"}
    assert capfd.readouterr().err == "metake: internal error: ValueError: first second\n"


def test_requests_of_other_sites_are_refused(served):
    """Neither another site's form or script nor another host name reaches the model."""
    for headers, line in (
        ({"Origin": "http://example.org"}, "the request is from another site"),
        ({"Content-Type": "text/plain"}, "the request must be JSON"),
        ({"Host": "example.org"}, "the request is to another host name"),
    ):
        status, body = served.post("undo", {}, **headers)
        assert status == 400
        assert json.loads(body)["error"].startswith(line)
    assert served.post("undo", revision(served), Origin=served.url)[0] == 400  # only because there is no edit


def test_responses_forbid_other_sources(served):
    """The page's headers allow scripts, styles and connections of this server alone."""
    place = urlsplit(served.url)
    for path in ("/", "/playground.js", "/playground.css", "/page.css", "/api/state", "/api/queue"):
        connection = http.client.HTTPConnection(place.netloc)
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200
        policy = response.getheader("Content-Security-Policy")
        assert "default-src 'none'" in policy
        assert "connect-src 'self'" in policy
        text = response.read().decode()
        assert "http://" not in text
        assert "https://" not in text
        connection.close()


def test_no_file_can_be_sent_or_read(served):
    """There is no path for uploads or for other files of the machine."""
    assert served.post("upload", b"x")[0] == 404
    assert served.post("../pyproject.toml", {})[0] == 404


def test_steps_run_one_at_a_time(served, monkeypatch):
    """Two edits that arrive together are made one after the other."""
    edit, inside, most = served.session.edit, [], []

    def watched(*given):
        inside.append(1)
        most.append(len(inside))
        try:
            return edit(*given)
        finally:
            inside.pop()

    monkeypatch.setattr("metake.playground.steps._check_revision", lambda *_: None)
    monkeypatch.setattr(served.session, "edit", watched)
    found = []
    threads = [threading.Thread(target=lambda: found.append(served.post("edit", FACT)[0])) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [200, 200, 200]
    assert most == [1, 1, 1]
    assert len(served.session.entries) == 3


def test_taken_port_is_one_line():
    from metake.playground.server import bound_socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MetakeError, match=f"--host 127.0.0.1 --port {port}: .*; give another --port"):
            bound_socket("127.0.0.1", port)


def test_command_without_its_extra_is_one_line(call, monkeypatch):
    """Without the extra the command names it, before a model is loaded."""
    import sys

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "metake.playground.server", raising=False)
    code, out, err = call("playground", "--model", "nowhere")
    assert (code, out) == (2, "")
    assert err == f"metake: error: the package uvicorn is missing; {lacks('playground')}\n"


def test_command_refuses_an_unknown_model(call):
    code, out, err = call("playground", "--model", "./nowhere", "--port", "0")
    assert (code, out) == (2, "")
    assert err.startswith("metake: error: ")
    assert err.count("\n") == 1
