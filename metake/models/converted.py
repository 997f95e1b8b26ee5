"""Converted GGUF files in the cache: a file is dequantized once, and its model folder is read from then on."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from metake.errors import MetakeError
from metake.files import check_writable, digest
from metake.folders import MANIFEST, cache_folder, file_digest, result_folder, verify
from metake.phases import note

FORMAT = 1  # of a cached folder; another number converts every file again
ROOM = 16  # free space that a conversion needs, relative to its file: 2-bit weights as fp32


@dataclass(frozen=True)
class Conversion:
    """Place of a converted file in the cache.

    Attributes:
        file: the GGUF file.
        folder: the model folder; its name is a hash of the file's content, the dtype, and the version of `transformers`.
    """

    file: Path
    folder: Path

    @classmethod
    def of(cls, file: Path, dtype: str) -> Conversion:
        """Place of a file's conversion.

        Args:
            file: the GGUF file.
            dtype: of the weights.

        Returns:
            The place, whether or not it exists.

        Raises:
            MetakeError: the file cannot be read.
        """
        try:
            content = file_digest(file)
        except OSError as error:
            raise MetakeError(f"{file}: cannot be read ({error.strerror})") from error
        key = digest([FORMAT, content, dtype, version("transformers")])[:16]
        return cls(file, cache_folder() / f"gguf-{key}-{dtype}")

    def is_cached(self) -> bool:
        """Whether the folder can be read. A damaged one gives a warning."""
        try:
            if not self.folder.exists():
                return False
        except OSError:  # a cache folder that may not be entered
            return False
        if self._is_whole():
            return True
        warnings.warn(f"{self.folder}: damaged: {self.file.name} is converted again", stacklevel=4)
        return False

    def _is_whole(self) -> bool:
        try:
            verify(self.folder)
            return (self.folder / MANIFEST).is_file()
        except (MetakeError, OSError):
            return False

    def is_cacheable(self) -> bool:
        """Whether the cache can be written and has room. If not, a warning gives the reason."""
        try:
            check_writable(self.folder, folder=True)
            place = next(folder for folder in self.folder.parents if folder.exists())
            needed = ROOM * self.file.stat().st_size
            if shutil.disk_usage(place).free < needed:
                raise MetakeError(f"{place}: less than {needed / 1e9:.1f} GB free")
        except (MetakeError, OSError) as error:
            self._warn(error)
            return False
        note(f"load: converting {self.file.name}, once, for {self.folder}")
        return True

    def _warn(self, error: Exception) -> None:
        warnings.warn(
            f"{self.file.name} is converted at every load: {error}; set METAKE_CACHE to a writable folder",
            stacklevel=5,
        )

    def store(self, write: Callable[[Path], object]) -> None:
        """Write the folder. Several processes may do so at once: the first complete folder stays.

        Args:
            write: called with a temporary folder, which becomes the cached one.
        """
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder.parent, prefix=".partial-") as temporary:
                place = Path(temporary) / "model"
                with result_folder(place) as files:
                    write(files)
                if self.folder.exists() and not self._is_whole():
                    self.folder.rename(Path(temporary) / "damaged")
                if not self.folder.exists():
                    place.rename(self.folder)
        except (MetakeError, OSError) as error:
            if not self._is_whole():  # another process may have been faster
                self._warn(error)
