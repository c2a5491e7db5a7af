"""What differs between a released model and the same model made again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from delivery.dvc import parse_lock
from delivery.git import Repository
from delivery.model.lineage import IN_GIT
from delivery.model.pipeline_outputs import IN_IMAGE, leaves
from workspace.files import sha256, write
from workspace.settings import SettingsError, read_json

ABSENT = "absent"


@dataclass(frozen=True)
class Compared:
    """One thing as it was released and as it was made again."""

    what: str
    released: str
    rebuilt: str

    @property
    def same(self) -> bool:
        """Both are equal."""
        return self.released == self.rebuilt


def compare_files(released: Mapping[str, Path], rebuilt: Mapping[str, Path]) -> list[Compared]:
    """List the files, by their name in the image, whose SHA-256 differs."""
    sides, names = (released, rebuilt), sorted(released.keys() | rebuilt.keys())
    found = [
        Compared(each, *(sha256(side[each]) if each in side else ABSENT for side in sides))
        for each in names
    ]
    return [each for each in found if not each.same]


def compare_accounts(released: Mapping[str, Path], rebuilt: Mapping[str, Path]) -> list[Compared]:
    """List the values that differ in the JSON files that both have, the lineage's first."""
    both = [name for name in released.keys() & rebuilt.keys() if name.endswith(".json")]
    found = []
    for name in sorted(both, key=lambda name: (not name.endswith("lineage.json"), name)):
        try:
            before, after = (dict(leaves(read_json(side[name]))) for side in (released, rebuilt))
        except SettingsError:  # a file that is no JSON differs as a whole
            continue
        for place in before | after:
            values = str(before.get(place, ABSENT)), str(after.get(place, ABSENT))
            found.append(Compared(f"{Path(name).name} {place}", *values))
    return [each for each in found if not each.same]


def files_below(folder: Path) -> dict[str, Path]:
    """Map the names of a folder's files, relative to it, to their paths."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path for path in paths}


def committed_files(repository: Repository, commit: str, folder: Path) -> dict[str, Path]:
    """Write those files of an image that are also in Git into a folder; map names to paths."""
    found = {}
    for name in IN_GIT:
        content = repository.read(commit, name)
        if content is not None:
            write(folder / name, content)
            found[f"{IN_IMAGE}/{name}"] = folder / name
    return found


def differing_outputs(repository: Repository, commit: str, clone: Path) -> list[str]:
    """List the outputs that are not those of the commit, as `train: artifacts/model.ckpt`.

    Both are the pipeline's own account, `dvc.lock`, in the order of the stages.
    """
    before = output_hashes(repository.read(commit, "dvc.lock"))
    after = output_hashes((clone / "dvc.lock").read_bytes())
    return [name for name, md5 in after.items() if before.get(name) != md5]


def output_hashes(lock: bytes | None) -> dict[str, str]:
    """Map the outputs in a `dvc.lock`, named by stage and path, to the MD5 of their content."""
    stages = parse_lock(lock).stages
    return {f"{name}: {out.path}": out.md5 for name, stage in stages.items() for out in stage.outs}
