"""The listing of raw images."""

import json
from pathlib import Path

from efficientnet_finetuning.data.sources import Source, reopen
from efficientnet_finetuning.io.committed import Committed
from efficientnet_finetuning.io.local import LocalVersionedDataset


class SourceDataset(Committed, LocalVersionedDataset[Source]):
    """A JSON file that describes a source of raw images; loading it opens the source again."""

    def _write(self, data: Source, path: Path) -> None:
        path.write_text(json.dumps(data.describe(), ensure_ascii=False, indent=1), encoding="utf-8")

    def _read(self, path: Path) -> Source:
        return reopen(json.loads(path.read_text(encoding="utf-8")))
