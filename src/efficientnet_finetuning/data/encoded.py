"""One encoded image of a source."""

from dataclasses import dataclass
from io import BufferedReader, BytesIO
from pathlib import Path


@dataclass(frozen=True)
class EncodedImage:
    """One encoded image.

    Attributes:
        id: stable and unique within the source.
        content: the encoded bytes, or the file that holds them, which is read only when needed.
        label: class index; -1 if unknown.
    """

    id: str
    content: bytes | Path
    label: int = -1

    def open(self) -> BufferedReader | BytesIO:
        """Open a stream of the encoded bytes; raises ``OSError`` if the file cannot be read."""
        if not isinstance(self.content, Path):
            return BytesIO(self.content)
        # Reading a pipe would block, and a device never ends.
        if not self.content.is_file() and self.content.exists():
            raise OSError("it is not a regular file")
        return self.content.open("rb")
