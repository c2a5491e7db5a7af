"""The cluster's programs, built from their Go modules."""

import functools
import json
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

HERE = Path(__file__).parent
PACKAGES = {  # Debian's, by a file of theirs
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "/usr/sbin/conntrack": "conntrack",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
    "/usr/sbin/debootstrap": "debootstrap",
    "/usr/bin/docker-registry": "docker-registry",
    "/usr/bin/git": "git",
    "/usr/sbin/ip": "iproute2",
    "/usr/sbin/iptables": "iptables",
    "/usr/include/seccomp.h": "libseccomp-dev",
    "/usr/bin/pkg-config": "pkg-config",
    "/usr/sbin/sysctl": "procps",
    "/usr/bin/skopeo": "skopeo",
}


@dataclass(frozen=True)
class Program:
    """One program: its Go module, the package of its `main`, and how it is built.

    A folder that it embeds and its module lacks, such as pages that others build, is an empty one.
    Of a module of `kinds` only their definitions are taken, and nothing is built.
    """

    name: str
    module: str
    version: str
    package: str = ""
    tags: str = ""
    cgo: bool = False
    optional: bool = False
    embedded: str = ""
    kinds: bool = False

    @property
    def file(self) -> str:
        """The file's name, which changes when the version does."""
        return f"{self.name}-{self.version}"


def modules() -> dict[str, Program]:
    """Every module of `programs.toml` by its name."""
    table = tomllib.loads((HERE / "programs.toml").read_text())
    return {name: Program(name, **entry) for name, entry in table.items()}


def programs() -> dict[str, Program]:
    """Every program by its name."""
    return {name: each for name, each in modules().items() if not each.kinds}


@functools.cache
def downloaded(program: Program) -> dict[str, str]:
    """What Go says of the module that it keeps, checked against its checksum database."""
    found = subprocess.run(
        ["go", "mod", "download", "-json", f"{program.module}@{program.version}"],
        check=True,
        stdout=subprocess.PIPE,
        cwd="/",
    )
    answer: dict[str, str] = json.loads(found.stdout)
    return answer


def source(program: Program) -> Path:
    """The folder with the module's code, as Go keeps it."""
    return Path(downloaded(program)["Dir"])


def complete(program: Program, work: Path) -> Path:
    """The folder to build in: a copy, where the module lacks what it embeds."""
    if not program.embedded:
        return source(program)
    with ZipFile(downloaded(program)["Zip"]) as archive:
        archive.extractall(work)
    folder = work / f"{program.module}@{program.version}"
    (folder / program.embedded).mkdir(parents=True, exist_ok=True)
    (folder / program.embedded / "empty").touch()
    return folder


def module_file(program: Program, folder: Path, work: Path) -> Path:
    """A copy of the module's go.mod whose modules are all downloaded.

    Those that it has from folders beside it, which are not part of the download, are taken at the
    version that was released with it.
    """
    go_mod = work / f"{program.name}.mod"
    shutil.copy(folder / "go.mod", go_mod)
    shutil.copy(folder / "go.sum", go_mod.with_suffix(".sum"))
    for path in [*work.glob(f"{program.name}.*")]:
        path.chmod(0o644)
    described = json.loads(
        subprocess.check_output(["go", "mod", "edit", "-json", str(go_mod)], cwd="/")
    )
    edits = []
    for replaced in described.get("Replace") or []:
        if not replaced["New"]["Path"].startswith("."):
            continue
        name = replaced["Old"]["Path"]
        edits.append(f"-dropreplace={name}")
        if program.module == "k8s.io/kubernetes":
            edits.append(f"-replace={name}={name}@{program.version.replace('v1.', 'v0.', 1)}")
    if edits:
        subprocess.run(["go", "mod", "edit", *edits, str(go_mod)], check=True, cwd="/")
    return go_mod


def stamps(program: Program) -> str:
    """The linker's flags. Kubernetes' programs parse their own version."""
    flags = "-s -w"
    if program.module == "k8s.io/kubernetes":
        major, minor, _ = program.version.removeprefix("v").split(".")
        at = "k8s.io/component-base/version"
        flags += f" -X {at}.gitVersion={program.version} -X {at}.gitMajor={major}"
        flags += f" -X {at}.gitMinor={minor}"
    return flags


def build(program: Program, folder: Path) -> Path:
    """`program` in `folder`, built unless it is there.

    Raises:
        subprocess.CalledProcessError: Go refused; what it said is on standard error.
    """
    built = folder / program.file
    if built.exists():
        return built
    work = folder / "go"
    work.mkdir(parents=True, exist_ok=True)
    code = complete(program, work)
    go_mod = module_file(program, code, work)
    half = folder / f"{program.file}.part"
    subprocess.run(
        [
            *("go", "build", "-mod=mod", f"-modfile={go_mod}", "-trimpath", "-buildvcs=false"),
            *(f"-tags={program.tags}", f"-ldflags={stamps(program)}", "-o", str(half)),
            program.package or f"./cmd/{program.name}",
        ],
        check=True,
        cwd=code,
        # The workspace that Kubernetes' module carries names folders that are not part of it.
        env={**os.environ, "CGO_ENABLED": str(int(program.cgo)), "GOWORK": "off"},
    )
    half.replace(built)
    return built


def main() -> None:
    """Build every program that is missing in the folder that is given, with a line for each.

    With `core` after it the optional ones are left out.
    """
    folder = Path(sys.argv[1]).resolve()
    table = {
        name: each
        for name, each in programs().items()
        if not each.optional or "core" not in sys.argv[2:]
    }
    if not shutil.which("go"):
        print("no Go here: the cluster's programs cannot be built")
        return
    install_packages()
    for number, program in enumerate(table.values(), 1):
        if not (folder / program.file).exists():
            print(f"{number} of {len(table)}: building {program.file}", flush=True)
            build(program, folder)
    for module in modules().values():
        downloaded(module)


def install_packages() -> None:
    """Install the Debian packages that the cluster needs, as root where APT is."""
    missing = [name for path, name in PACKAGES.items() if not Path(path).exists()]
    if missing and not os.geteuid() and shutil.which("apt-get"):
        print(f"installing {', '.join(missing)}", flush=True)
        for command in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
            subprocess.run(["apt-get", "-qq", *command], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
