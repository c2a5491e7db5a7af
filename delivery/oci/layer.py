"""The layer of a model image: a tar archive that can be written in one way only.

Sorted names, owner 0:0, mode 0644 (folders 0755), time 0 and no compression: compressors differ
between machines, and weights hardly shrink. A layer that is unpacked is written again at the same
time, so whoever unpacks it, with whatever program, gets the same files.
"""

import os
import re
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from tqdm import tqdm

from delivery.errors import DeliveryError
from delivery.oci.image import CHUNK
from delivery.oci.layout import HashingWriter
from workspace.settings import shown

PART = "[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}"  # of a name that every file system takes as it is
NAME = re.compile(rf"{PART}(?:/{PART}){{0,31}}")  # folders in one another; a model has four
EXTENDED = 4096  # bytes of a header's extension, for a long name or 8 GiB
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


class Copied:
    """A binary stream that writes into a file what is read from it."""

    def __init__(self, stream: IO[bytes], copy: IO[bytes]) -> None:
        """Read from `stream`."""
        self._stream, self._copy = stream, copy

    def read(self, size: int) -> bytes:
        """Read and copy at most `size` bytes."""
        chunk = self._stream.read(size)
        self._copy.write(chunk)
        return chunk


def write_layer(files: dict[str, Path], stream: HashingWriter) -> None:
    """Write files as a layer, `name → path`, with the folders that the names imply.

    Raises DeliveryError for a name that no layer may hold.
    """
    total = sum(path.stat().st_size for path in files.values())
    with (
        tqdm.wrapattr(stream, "write", total=total, desc="package", delay=1, disable=None) as out,
        _archive(out) as archive,
    ):
        for name in members(files):
            _add(archive, _checked(name, f"{files.get(name, 'the model')} is packaged as"), files)


def unpack(layer: IO[bytes], folder: Path) -> str:
    """Unpack a layer into a new folder and return the digest of the same files as a layer.

    It is the layer's own only if `write_layer` could have written it. Memory use does not depend
    on what the layer holds. Raises DeliveryError or tarfile.TarError, and leaves what it wrote.
    """
    folder.mkdir()
    names: list[str] = []
    files: set[str] = set()
    with (
        Path(os.devnull).open("wb") as nowhere,
        tarfile.open(fileobj=layer, mode="r:", tarinfo=Entry) as archive,
    ):
        again = HashingWriter(nowhere)
        with _archive(again) as copy:
            for entry in archive:
                _place(archive, entry, folder / _next(entry, names), copy)
                files |= set() if entry.isdir() else {entry.name}
    if names != members(files):
        raise DeliveryError("the layer holds empty folders")
    return again.digest


def members(files: Iterable[str]) -> list[str]:
    """Return the names of a layer in their order: files, and the folders that they imply."""
    folders = {str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."}
    return sorted({*folders, *files})


def _archive(stream: Any) -> tarfile.TarFile:
    return tarfile.TarFile(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT, copybufsize=CHUNK)


def _header(name: str, size: int | None) -> tarfile.TarInfo:
    """Describe a file, or without a size a folder."""
    entry = tarfile.TarInfo(name)  # owner 0:0, time 0 and no names unless they are set
    if size is None:
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    else:
        entry.size, entry.mode = size, 0o644
    return entry


def _add(archive: tarfile.TarFile, name: str, files: dict[str, Path]) -> None:
    if name not in files:
        archive.addfile(_header(name, None))
        return
    with files[name].open("rb") as source:
        archive.addfile(_header(name, files[name].stat().st_size), source)


def _next(entry: tarfile.TarInfo, names: list[str]) -> str:
    """Return the name of an entry, if it may follow the names before it, and note it there."""
    name = _checked(entry.name, "the layer holds")
    if name <= (names[-1] if names else "") or len(names) == MOST:
        raise DeliveryError(f"the layer holds {shown(name)} twice, unsorted or as one of too many")
    if not entry.pax_headers.keys() <= {"path", "size"}:
        raise DeliveryError(f"the layer holds {shown(name)} with an unknown extension")
    names.append(name)
    return name


def _checked(name: str, what: str) -> str:
    if not NAME.fullmatch(name):
        raise DeliveryError(
            f"{what} {shown(name)}: a name is at most 32 times 1 to 100 of A-Z a-z 0-9 . _ + -, "
            "divided by /, and none begins with a dot"
        )
    return name


def _place(
    archive: tarfile.TarFile, entry: tarfile.TarInfo, target: Path, copy: tarfile.TarFile
) -> None:
    """Put an entry in its place and write it again into a copy of the archive."""
    if not target.parent.is_dir():
        raise DeliveryError(f"the layer holds {shown(entry.name)} without its folder")
    if entry.isdir():
        target.mkdir()
        copy.addfile(_header(entry.name, None))
        return
    with target.open("xb") as file:
        source = Copied(cast(IO[bytes], archive.extractfile(entry)), file)
        copy.addfile(_header(entry.name, entry.size), cast(Any, source))
