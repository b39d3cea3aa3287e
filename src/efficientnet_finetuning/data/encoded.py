"""One image as a source hands it over."""

from dataclasses import dataclass
from io import BufferedReader, BytesIO
from pathlib import Path


@dataclass(frozen=True)
class EncodedImage:
    """One image as it lies on disk.

    Attributes:
        id: stable and unique within the source.
        content: the encoded bytes, or the file that holds them and is not read before it is needed.
        label: index of its class; -1 where nobody knows it.
    """

    id: str
    content: bytes | Path
    label: int = -1

    def open(self) -> BufferedReader | BytesIO:
        """A stream of the encoded bytes.

        Raises:
            OSError: the file cannot be read.
        """
        if not isinstance(self.content, Path):
            return BytesIO(self.content)
        # A pipe would wait for its writer, and a device never ends.
        if not self.content.is_file() and self.content.exists():
            raise OSError("it is no file")
        return self.content.open("rb")
