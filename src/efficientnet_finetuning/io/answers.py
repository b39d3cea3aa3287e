"""Tables too long for memory, written part by part as CSV for people and as Parquet for programs."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from efficientnet_finetuning.io.committed import Committed
from efficientnet_finetuning.io.local import LocalVersionedDataset

# Spreadsheets take cells with these beginnings for formulas; see OWASP on CSV injection.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class AnswersDataset(Committed, LocalVersionedDataset[Any]):
    """``<name>.csv`` and, beside it, ``<name>.parquet``, which is loaded as one table.

    In the CSV, text that a spreadsheet would run as a formula gets a leading apostrophe; in Parquet it is unchanged.
    """

    def _write(self, data: Iterable[pd.DataFrame], path: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        writer = None
        with path.open("w", encoding="utf-8", newline="") as stream:
            for part in data:
                _harmless(part).to_csv(stream, index=False, header=writer is None, quoting=csv.QUOTE_MINIMAL)
                table = pyarrow.Table.from_pandas(part, preserve_index=False)
                writer = writer or parquet.ParquetWriter(path.with_suffix(".parquet"), table.schema)
                writer.write_table(table)
        if writer:
            writer.close()

    def _read(self, path: Path) -> pd.DataFrame:
        return pd.read_parquet(path.with_suffix(".parquet"))


def _harmless(table: pd.DataFrame) -> pd.DataFrame:
    texts = table.select_dtypes(["object", "string"])
    return table.assign(
        **{
            str(name): [f"'{text}" if str(text).startswith(_FORMULA) else text for text in column]
            for name, column in texts.items()
        }
    )
