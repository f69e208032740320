"""Small public data sets by name or address: downloaded into the cache, unpacked into a new folder."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from detkit.data.writers.target import all_or_nothing
from detkit.hub import is_remote, local_path
from detkit.utils.console import nearest, printable
from detkit.utils.outputs import file_sha256


@dataclass(frozen=True)
class PublicSet:
    """A data set that anybody may download.

    url: of an archive. licence, content: as its publisher states them. megabytes: of the archive, None where it is not
    published. sha256: of the archive; empty where none is published, as for an archive that is packed anew on demand.
    """

    url: str
    licence: str
    content: str
    megabytes: int | None = None
    sha256: str = ""


def repository(name: str) -> str:
    """The address of the newest files of a repository on GitHub."""
    return f"https://github.com/{name}/archive/HEAD.zip"


CARDS = "EdjeElectronics/TensorFlow-Object-Detection-API-Tutorial-Train-Multiple-Objects-Windows-10"
PUBLIC_SETS = {
    "bccd": PublicSet(repository("Shenggan/BCCD_Dataset"), "MIT", "364 blood-cell micrographs, 3 classes, VOC"),
    "cards": PublicSet(repository(CARDS), "Apache-2.0", "363 photographs, 6 classes, XML beside images and CSV"),
    "coco128": PublicSet(
        "https://github.com/ultralytics/assets/releases/download/v0.0.0/coco128.zip",
        "annotations CC BY 4.0, photographs under Flickr's terms", "128 photographs of COCO, 80 classes, YOLO", 7,
    ),
    "fruit": PublicSet(
        repository("chanjianliu/fruit_recognition"), "MIT", "300 photographs, 3 classes, XML beside images"
    ),
    "traffic_lights": PublicSet(
        repository("liwenchao956/Traffic-signal-recognition--"), "MIT", "557 photographs, 14 classes, VOC"
    ),
}  # fmt: skip


def describe_sets() -> list[str]:
    """A line for each public set."""
    return [
        f"{name:15} {s.content}; {f'{s.megabytes} MB' if s.megabytes else 'size not published'}; licence: {s.licence}; "
        f"sha256: {s.sha256 or 'none published'}; {s.url}"
        for name, s in PUBLIC_SETS.items()
    ]


def fetch_set(source: str, folder: Path, sha256: str = "") -> str:
    """Downloads an archive, checks and unpacks it into a new or empty folder, and returns its SHA-256.

    source: a name of `PUBLIC_SETS`, or an address of a zip or tar file. sha256: what the archive must have; empty takes
    that of the list. ValueError for an unknown name and for an archive that can't be unpacked.
    """
    known = PUBLIC_SETS.get(source)
    if known is None and not is_remote(source):
        raise ValueError(f"{source!r} is not in the list{nearest(source, list(PUBLIC_SETS))} Give a name or an address")
    address, wanted = (known.url, sha256 or known.sha256) if known else (source, sha256)
    archive = local_path(f"{address}#sha256={wanted}" if wanted else address)
    with all_or_nothing(folder) as new:
        unpack(archive, new)
    return file_sha256(archive)


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a zip or tar file; nothing of it can leave the folder, and no links are made by a zip file."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                check_room(archive, sum(info.file_size for info in file.infolist()), folder)
                file.extractall(folder)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                check_room(archive, sum(info.size for info in tar), folder)
                tar.extractall(folder, filter="data")
        else:
            raise ValueError("it is neither a zip nor a tar file")
    except (zipfile.BadZipFile, tarfile.TarError, RuntimeError, NotImplementedError, EOFError, ValueError) as error:
        raise ValueError(f"{printable(archive)} can't be unpacked: {error}") from None


def check_room(archive: Path, size: int, folder: Path) -> None:
    """Raises ValueError if the unpacked files would fill the disk."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ValueError(f"its files have {size / 1e6:.0f} MB, and the disk has {free / 1e6:.0f} MB left")
