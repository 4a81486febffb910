"""What a verb hands back of the files it has written; layers, records and settings among them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from eofm import __version__
from eofm.errors import DataError
from eofm.formats.text import settings_text
from eofm.report.output import write_file

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from geopandas import GeoDataFrame

CONFIG: Final = "config.yaml"
NO_NUMBER: Final = -1.0  # of float rasters: NaN is not understood by all programs


@dataclass(frozen=True)
class ResultFiles:
    """The outcome of `eofm map`, `search` and `change`.

    Args:
        folder: Of the files.
        text: What was found: the accuracy, the best places, how much has changed.
        files: What was written.
    """

    folder: Path
    text: str
    files: tuple[Path, ...]

    def describe(self) -> str:
        """Return what was found, and the files."""
        names = " ".join(str(file.relative_to(self.folder)) for file in self.files)
        return f"{self.text}\n{self.folder}: {names}"


def write_record(file: Path, record: Mapping[str, Any]) -> Path:
    """Write all numbers of a result as JSON, with the version of eofm.

    Args:
        file: The file; the folder above it is made.
        record: What is written, in plain types.

    Raises:
        DataError: If it cannot be written.
    """
    content = json.dumps({"eofm": __version__, **record}, indent=1)
    return write_file(file, f"{content}\n".encode())


def write_settings(config: DataclassInstance, file: Path) -> Path:
    """Write the settings of a verb beside what it made: `--config FILE` makes it again.

    Args:
        config: The settings, as on the command line; files are named as they were there.
        file: The file; the folder above it is made.

    Raises:
        DataError: If it cannot be written.
    """
    return write_file(file, settings_text(config).encode())


def write_frame(frame: GeoDataFrame, file: Path) -> Path:
    """Write a GeoDataFrame as GeoPackage, or as GeoParquet by its suffix.

    Raises:
        DataError: If it cannot be written.
    """
    temporary = file.with_name(f"{file.stem}.tmp{file.suffix}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        if file.suffix == ".parquet":
            frame.to_parquet(temporary)
        else:
            frame.to_file(temporary, driver="GPKG", layer=file.stem, engine="pyogrio")
        temporary.replace(file)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            "the layer cannot be written", found=error, where=file, remedy="name another --out"
        ) from error
    return file
