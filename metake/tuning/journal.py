"""A search's journal: optuna's log, each entry behind a digest of it and of all before it."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend, JournalFileSymlinkLock

from metake.errors import MetakeError
from metake.files import digest


class Journal(BaseJournalBackend):
    """Lines `{"digest", "log"}`; one that was cut off by a kill is dropped, a changed one refused.

    Args:
        path: path of the journal; it is created.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, JournalFileSymlinkLock(str(path))
        self._logs: list[dict[str, Any]] = []
        self._end, self._last = 0, ""  # of the lines read so far: where they end, and the digest there
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Entries of the journal; a changed line raises a `MetakeError`.

        Args:
            log_number_from: number of the first entry, from 0.

        Yields:
            One entry after another.
        """
        self._catch_up()
        yield from self._logs[log_number_from:]

    def _catch_up(self) -> None:
        """Read the lines that were added since.

        Raises:
            MetakeError: a line is not as it was written.
        """
        with self.path.open("rb") as file:
            file.seek(self._end)
            lines = file.read().splitlines(keepends=True)
        for line in lines:
            if not line.endswith(b"\n"):
                return
            try:
                entry = json.loads(line)
                log, found = entry["log"], entry["digest"]
                intact = found == digest([self._last, log])
            except (ValueError, KeyError, TypeError, RecursionError):
                intact = False
            if not intact:
                raise MetakeError(
                    f"{self.path}: line {len(self._logs) + 1} is damaged, or of an earlier metake; "
                    "give another --journal, or remove it: the search begins again"
                )
            self._logs.append(log)
            self._end, self._last = self._end + len(line), found

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append entries, after the last whole line.

        Args:
            logs: the entries.
        """
        self._lock.acquire()
        try:
            self._catch_up()
            last, lines = self._last, []
            for log in logs:
                last = digest([last, log])
                lines.append(json.dumps({"digest": last, "log": log}) + "\n")
            with self.path.open("r+b") as file:
                file.truncate(self._end)  # what a killed process left of a line
                file.seek(self._end)
                file.write("".join(lines).encode())
        finally:
            self._lock.release()
