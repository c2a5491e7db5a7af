"""Images under the names that the manifests give them, from Debian packages and our own builds.

Images cannot be pulled where the tests run, so the same programs are put into images of the same
names. Layers are tar files without compression, whose digests the registry keeps.
"""

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from local_cluster import REGISTRY
from server_image import base, step

PACKAGES = "ca-certificates git gnupg redis-server tini"
PATHS = "PATH=/usr/local/bin:/usr/bin:/bin"
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True)
class Layer:
    """A tar file and its digest."""

    file: Path
    digest: str

    @property
    def described(self) -> dict:
        """The layer in an image manifest."""
        return {
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": self.digest,
            "size": self.file.stat().st_size,
        }


def layer(file: Path) -> Layer:
    """The layer that a tar file is; its digest is kept beside it."""
    kept = file.with_suffix(".digest")
    if not kept.exists():
        with file.open("rb") as stream:
            kept.write_text(f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}")
    return Layer(file, kept.read_text())


def root_layer(cache: Path, root: Path) -> Layer:
    """The layer of a folder that holds a whole file system."""
    file = cache / f"{root.name}.tar"
    if not file.exists():
        half = file.with_suffix(".part")
        subprocess.run(
            [
                *("tar", "--create", "--sort=name", "--numeric-owner", f"--file={half}"),
                *("--exclude=./proc/*", "--exclude=./sys/*", "--exclude=./var/cache/apt/*"),
                *("--exclude=./var/lib/apt/lists/*", f"--directory={root}", "."),
            ],
            check=True,
        )
        half.replace(file)
    return layer(file)


def debian_layer(cache: Path) -> Layer:
    """A small Debian with what Argo CD's programs call."""
    root = cache / "debian"
    if not root.exists():
        draft = cache / "debian.part"
        shutil.rmtree(draft, ignore_errors=True)
        subprocess.run(["cp", "--archive", str(base(cache)), str(draft)], check=True)
        step(draft, f"apt-get update && apt-get install --yes --no-install-recommends {PACKAGES}")
        draft.rename(root)
    return root_layer(cache, root)


def file_layer(file: Path, files: dict[str, Path | bytes], links: dict[str, str]) -> Layer:
    """A layer of files that everyone may read and run, and of links, by their path in the image."""
    with tarfile.open(file, "w") as archive:
        for name, content in files.items():
            data = content.read_bytes() if isinstance(content, Path) else content
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            archive.addfile(entry, io.BytesIO(data))
        for name, target in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    file.with_suffix(".digest").unlink(missing_ok=True)
    return layer(file)


def push(name: str, layers: Sequence[Layer], work: Path, **settings: object) -> str:
    """Put an image into the registry under `name`, without its host; give its digest.

    `settings` are those of an image's configuration: `User`, `Entrypoint`.
    """
    folder = work / name.replace("/", "-").replace(":", "-")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "blobs" / "sha256").mkdir(parents=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    configuration = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": [PATHS], **settings},
        "rootfs": {"type": "layers", "diff_ids": [each.digest for each in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(folder, "application/vnd.oci.image.config.v1+json", configuration),
        "layers": [each.described for each in layers],
    }
    for each in layers:
        (folder / "blobs" / "sha256" / each.digest.partition(":")[2]).hardlink_to(each.file)
    listed = blob(folder, "application/vnd.oci.image.manifest.v1+json", manifest)
    index = {"schemaVersion": 2, "manifests": [listed]}
    (folder / "index.json").write_text(json.dumps(index))
    subprocess.run(
        [
            *("skopeo", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"),
            *(f"oci:{folder}", f"docker://{REGISTRY}/{name}"),
        ],
        check=True,
    )
    shutil.rmtree(folder)
    return listed["digest"]


def blob(folder: Path, media_type: str, content: dict) -> dict:
    """Write an object into a layout; give its descriptor."""
    data = json.dumps(content).encode()
    digest = hashlib.sha256(data).hexdigest()
    (folder / "blobs" / "sha256" / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def trusting(work: Path, base: Path, authority: bytes) -> Layer:
    """A layer that adds an authority to those that Debian's programs trust."""
    known = (base / CERTIFICATES).read_bytes() if base.exists() else b""
    return file_layer(work / "trust.tar", {CERTIFICATES: known + authority}, {})


def program_layer(work: Path, program: Path, name: str, links: Iterable[str] = ()) -> Layer:
    """A layer of one program in /usr/local/bin, also under other names."""
    place = f"usr/local/bin/{name}"
    return file_layer(
        work / f"{name}.tar", {place: program}, {f"usr/local/bin/{each}": name for each in links}
    )
