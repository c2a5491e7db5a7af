"""The root file system of the server image for CPUs, where there is no program to build images.

The steps are the Dockerfile's own, each run in a folder as a container would run it. Only the base
is not the one that the Dockerfile names, but the same system, made by debootstrap. Needs root.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from delivery.triton.cpu_image import write_context

UNBAKED = Path(__file__).parents[2] / "<<cookiecutter.project>>"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")  # by which this machine trusts registries
# What Debian's slim images are without.
FAT = ("usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man", "var/log")
FAT += ("var/cache", "var/lib/apt/lists")
SOURCES = """Types: deb
URIs: {address}
Suites: bookworm
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


def server_root(folder: Path, project: Path = UNBAKED) -> Path:
    """Return the root file system of the server image, made in `folder` if it is not there.

    It is named after what it is made from, so that a change makes another one. Files are owned as
    in a container. Raises CalledProcessError for a step that failed and said so on standard error.
    """
    with tempfile.TemporaryDirectory() as place:
        made_from = Path(place) / "context"
        content = write_context(project, made_from)
        root = folder / f"server-{content[:12]}"
        if not root.exists():
            stages = folder / "stages"
            shutil.rmtree(stages, ignore_errors=True)
            build(made_from, base(folder), stages).rename(root)
            shutil.rmtree(stages)
    return root


def base(folder: Path) -> Path:
    """Return Debian 12 as its slim image has it, with this machine's mirror of the packages."""
    root = folder / "debian-12"
    if not root.exists():
        draft = folder / "debian-12.part"
        shutil.rmtree(draft, ignore_errors=True)
        run("debootstrap", "--variant=minbase", "bookworm", str(draft))
        listed = draft / "etc/apt/sources.list"
        sources = draft / "etc/apt/sources.list.d/debian.sources"
        sources.write_text(SOURCES.format(address=listed.read_text().split()[1]))
        listed.unlink()
        for each in FAT:
            shutil.rmtree(draft / each)
            (draft / each).mkdir()
        draft.rename(root)
    return root


def build(made_from: Path, base: Path, stages: Path) -> Path:
    """Follow the Dockerfile of a folder; return the root file system of its last stage."""
    root, names, place = base, {"${BASE}": base}, "/"
    for number, (instruction, argument) in enumerate(instructions(made_from / "Dockerfile")):
        print(f"{instruction} {argument}", file=sys.stderr, flush=True)
        match instruction:
            case "FROM":
                parent, _, name = argument.partition(" AS ")
                root, place = stages / (name or "last"), "/"
                names[name] = root
                root.parent.mkdir(parents=True, exist_ok=True)
                run("cp", "--archive", "--reflink=auto", str(names[parent]), str(root))
            case "RUN":
                step(root, f"cd {place} && {argument}")
            case "WORKDIR":
                place = argument
            case "COPY":
                *origin, source, target = shlex.split(argument)
                stage = names[origin[0].removeprefix("--from=")] if origin else made_from
                copy(stage / source.lstrip("/"), root, target)
            case "ARG" | "USER" | "CMD":
                pass  # of the image's account, not of its files
            case _:
                raise NotImplementedError(f"step {number} of the Dockerfile: {instruction}")
    return root


def instructions(dockerfile: Path) -> Iterator[tuple[str, str]]:
    """Yield the instructions of a Dockerfile with what follows them, lines joined."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.startswith("#")]
    for line in re.sub(r" *\\\n *", " ", "\n".join(lines)).splitlines():
        if line.strip():
            instruction, _, argument = line.partition(" ")
            yield instruction, argument


def step(root: Path, command: str) -> None:
    """Run a shell's command in a root file system, lent what reaches the packages' registries."""
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    shutil.copy(CERTIFICATES, root / "certificates")
    variables = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    variables |= {"PIP_CERT": "/certificates", "DEBIAN_FRONTEND": "noninteractive"}
    variables |= {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    run("chroot", str(root), "/bin/sh", "-c", command, env=variables)
    (root / "certificates").unlink()


def copy(source: Path, root: Path, target: str) -> None:
    """Copy a file or a folder as COPY does."""
    place = root / target.lstrip("/")
    place = place / source.name if target.endswith("/") else place
    place.parent.mkdir(parents=True, exist_ok=True)
    run("cp", "--archive", "--no-target-directory", str(source), str(place))


def run(*command: str, env: dict[str, str] | None = None) -> None:
    """Run a program whose output is progress."""
    subprocess.run(command, check=True, stdout=sys.stderr.fileno(), env=env)


if __name__ == "__main__":
    print(server_root(Path(sys.argv[1])))
