"""The cluster's programs, built from their Go modules."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
# Go's minor version of a module of Kubernetes' own repository: `k8s.io/api` of 1.36.3 is v0.36.3.
STAGING = re.compile(r"^v1\.")


@dataclass(frozen=True)
class Program:
    """One program: its Go module, the package of its `main`, and how it is built."""

    name: str
    module: str
    version: str
    package: str = ""
    tags: str = ""
    cgo: bool = False

    @property
    def file(self) -> str:
        """The file's name, which changes when the version does."""
        return f"{self.name}-{self.version}"


def programs() -> dict[str, Program]:
    """Every program of `programs.toml` by its name."""
    table = tomllib.loads((HERE / "programs.toml").read_text())
    return {name: Program(name, **entry) for name, entry in table.items()}


def source(program: Program) -> Path:
    """The folder with the module's code, as Go keeps it, checked against Go's checksum database."""
    found = subprocess.run(
        ["go", "mod", "download", "-json", f"{program.module}@{program.version}"],
        check=True,
        stdout=subprocess.PIPE,
        cwd="/",
    )
    return Path(json.loads(found.stdout)["Dir"])


def module_file(program: Program, folder: Path, work: Path) -> Path:
    """A copy of the module's go.mod, with the modules that it has from folders beside it (which are not
    part of what is downloaded) taken at the version that was released with it."""
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
            edits.append(f"-replace={name}={name}@{STAGING.sub('v0.', program.version)}")
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
    code = source(program)
    go_mod = module_file(program, code, work)
    half = folder / f"{program.file}.part"
    subprocess.run(
        ["go", "build", "-mod=mod", f"-modfile={go_mod}", "-trimpath", "-buildvcs=false"]
        + [f"-tags={program.tags}", f"-ldflags={stamps(program)}", "-o", str(half)]
        + [program.package or f"./cmd/{program.name}"],
        check=True,
        cwd=code,
        # The workspace that Kubernetes' module carries names folders that are not part of it.
        env={**os.environ, "CGO_ENABLED": str(int(program.cgo)), "GOWORK": "off"},
    )
    half.replace(built)
    return built


if __name__ == "__main__":
    wanted = programs()
    for name in sys.argv[2:] or wanted:
        print(f"building {name} {wanted[name].version}", flush=True)
        build(wanted[name], Path(sys.argv[1]))
