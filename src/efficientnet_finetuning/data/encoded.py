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
        return self.content.open("rb") if isinstance(self.content, Path) else BytesIO(self.content)
