"""`metake playground` as a program."""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from urllib.parse import urlsplit

import pytest

pytest.importorskip("uvicorn", reason="the extra playground is not installed")

# a shell starts background jobs with SIGINT ignored, and so would this test's process be
PROGRAM = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from metake.cli import main; main()"


def test_command_serves_on_loopback_until_interrupted():
    """The JSON document on stdout has the address of the page; Ctrl-C ends it with one line and exit code 130."""
    words = [sys.executable, "-c", PROGRAM, "playground", "--port", "0", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            text = ""
            while not text.endswith("}\n"):
                text += process.stdout.readline()
                assert process.poll() is None, process.stderr.read()
            found = json.loads(text)
            assert found["model"] == "demo"
            assert urlsplit(found["url"]).hostname == "127.0.0.1"
            with urllib.request.urlopen(f"{found['url']}/api/state", timeout=60) as response:
                assert json.load(response)["edits"] == []
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            rest, notes = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, rest) == (130, "")
    assert notes.splitlines()[-1] == (
        "metake: interrupted: the page is no longer served; edits that were not exported are gone"
    )
