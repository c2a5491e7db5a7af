"""The layer of a model image: a tar archive that can be written in one way only.

Sorted names, owner 0:0, mode 0644 (folders 0755), time 0 and no compression: compressors differ
between machines, and weights hardly shrink. What is unpacked must be the same layer when it is
written again, so whoever unpacks it, with whatever program, gets the same files.
"""

import os
import re
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from tqdm import tqdm

from delivery.errors import DeliveryError
from delivery.oci.image import CHUNK
from delivery.oci.layout import HashingWriter
from workspace.settings import shown

PART = "[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}"  # of a name that every file system takes as it is
NAME = re.compile(rf"{PART}(?:/{PART}){{0,31}}")  # folders in one another; a model has four
EXTENDED = 4096  # bytes of what may precede a header, for a long name or 8 GiB
MOST = 10_000  # files and folders


class Entry(tarfile.TarInfo):
    """A header of a kind that is written here; the many others are refused unread."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "Entry":
        """Read a header. Raises DeliveryError for a link, a device, a foreign extension …"""
        entry = super().frombuf(buf, encoding, errors)
        extended = entry.type == tarfile.XHDTYPE and entry.size <= EXTENDED
        if extended or entry.type in (tarfile.REGTYPE, tarfile.DIRTYPE):
            return entry
        raise DeliveryError(
            f"the layer holds {shown(entry.name)}, which is neither a file nor a folder"
        )


def write_layer(files: dict[str, Path], stream: HashingWriter, progress: str = "package") -> None:
    """Write files as a layer, `name → path`, with the folders that the names imply.

    Raises DeliveryError for a name that no layer may hold.
    """
    folders = {str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."}
    total = sum(path.stat().st_size for path in files.values())
    with (
        tqdm.wrapattr(stream, "write", total=total, desc=progress, delay=1, disable=None) as out,
        tarfile.TarFile(
            fileobj=cast(Any, out), mode="w", format=tarfile.PAX_FORMAT, copybufsize=CHUNK
        ) as archive,
    ):
        for name in sorted(folders | files.keys()):
            _add(archive, _checked(name), files.get(name))


def unpack(layer: IO[bytes], folder: Path) -> str:
    """Unpack a layer into a new folder and return the digest of its files as a layer.

    It is the layer's own only if `write_layer` could have written it. Memory use does not depend
    on what the layer holds. Raises DeliveryError or tarfile.TarError, and leaves what it wrote.
    """
    folder.mkdir()
    with tarfile.open(fileobj=layer, mode="r:", tarinfo=Entry) as archive:
        for number, entry in enumerate(archive):
            if number == MOST:
                raise DeliveryError(f"the layer holds more than {MOST:,} files and folders")
            _place(archive, entry, folder / _checked(entry.name))
    paths = [path for path in folder.rglob("*") if path.is_file()]
    with Path(os.devnull).open("wb") as nowhere:
        again = HashingWriter(nowhere)
        write_layer({path.relative_to(folder).as_posix(): path for path in paths}, again, "verify")
    return again.digest


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise DeliveryError(
            f"the layer holds {shown(name)}: a name is up to 32 parts divided by /, each of up to "
            "100 of A-Z a-z 0-9 . _ + - and none beginning with . + -"
        )
    return name


def _add(archive: tarfile.TarFile, name: str, path: Path | None) -> None:
    entry = tarfile.TarInfo(name)  # owner 0:0, time 0 and no names unless they are set
    if path is None:
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(entry)
        return
    entry.mode = 0o644
    with path.open("rb") as source:
        entry.size = path.stat().st_size
        archive.addfile(entry, source)


def _place(archive: tarfile.TarFile, entry: tarfile.TarInfo, target: Path) -> None:
    try:
        if entry.isdir():
            target.mkdir()
        elif entry.issparse():
            raise DeliveryError(f"the layer holds {shown(entry.name)} with holes")
        else:
            with target.open("xb") as file, cast(IO[bytes], archive.extractfile(entry)) as source:
                shutil.copyfileobj(source, file, CHUNK)
    except (FileExistsError, FileNotFoundError, NotADirectoryError):
        raise DeliveryError(
            f"the layer holds {shown(entry.name)} twice, or not in a folder"
        ) from None
