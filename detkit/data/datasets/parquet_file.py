"""What is in a Parquet file before its rows are read: whether it is one, its columns, and who reads them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from detkit.data.datasets.list_entries import BOX_KEYS, LABEL_KEYS
from detkit.data.datasets.shard_files import Source
from detkit.data.datasets.shards import OBJECTS
from detkit.hub.download import FetchError
from detkit.hub.ranges import RangeReader, RemoteFile
from detkit.utils.console import printable
from detkit.utils.types import Tree

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile


def open_parquet(path: Path | Source, footer: Any = None) -> ParquetFile:
    """A Parquet file; ValueError that names it if it is none, ImportError that names the extra.

    footer: its metadata, if they have been read.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise ImportError(f"{printable(path)}: Parquet files need pyarrow: pip install 'detkit[parquet]'") from None
    try:
        return ParquetFile(RangeReader(path) if isinstance(path, RemoteFile) else str(path), metadata=footer)
    except FetchError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{printable(path)}: not a Parquet file that can be read ({first_line(error)})") from None


def first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


def columns_of(path: Path) -> dict[str, Any]:
    """Column -> its type in Arrow; none for a file that can't be read, which the reader reports."""
    try:
        with open_parquet(path) as file:
            return {field.name: field.type for field in file.schema_arrow}
    except (ImportError, ValueError, OSError):
        return {}


def column_options(path: Path) -> Tree:
    """The arguments that name the columns of a file which has others than `image` and `objects`."""
    columns = columns_of(path)
    images = [name for name, kind in columns.items() if is_image(kind)]
    options: Tree = {"image": images[0]} if "image" not in columns and len(images) == 1 else {}
    other = next((name for name in OBJECTS if name in columns), OBJECTS[0])
    return options if other == OBJECTS[0] else {**options, "objects": other}


def is_image(kind: Any) -> bool:
    """Whether an Arrow type is a struct of an image's bytes and path."""
    return {"bytes", "path"} <= {kind.field(i).name for i in range(kind.num_fields)}


def needs_library(path: Path) -> bool:
    """Whether `HuggingFaceDataset` reads such Parquet files: with columns of boxes, or images by path alone."""
    columns = columns_of(path)
    if columns and not columns.keys() & set(OBJECTS):
        return bool(columns.keys() & set(BOX_KEYS)) and bool(columns.keys() & set(LABEL_KEYS))
    images = [name for name, kind in columns.items() if is_image(kind)]
    return bool(images) and all(only_names_images(path, name) for name in images)


def only_names_images(path: Path, image: str) -> bool:
    """Whether a column has no bytes in the first group of rows, as `datasets` exports images that are files."""
    with open_parquet(path) as file:
        if not file.metadata.num_row_groups:
            return False
        group = file.metadata.row_group(0)
        column = next(c for i in range(group.num_columns) if (c := group.column(i)).path_in_schema == f"{image}.bytes")
        statistics = column.statistics
        return statistics is not None and bool(statistics.null_count == group.num_rows)
