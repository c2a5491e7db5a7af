"""Whether the pipeline's outputs belong to the commit that they are released from."""

import hashlib
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import TypeAdapter, ValidationError

from delivery.dvc import adding, dvc, parse_lock, typed_dvc
from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.model.pipeline_outputs import MODEL, ModelAccount, leaves
from workspace.model_code import PIPELINE, code_files, named_code, sha256, stored
from workspace.settings import check, parse_json, parse_yaml

IN_GIT = ["metrics.json", "lineage.json", "MODEL_CARD.md"]


def check_lineage(repository: Repository, commit: str, account: ModelAccount) -> None:
    """Raise DeliveryError unless code, parameters, data and model are those of the commit."""
    check_committed(repository, commit)
    check_code(repository, commit, account.lineage.code.sha256)
    check_parameters(repository, commit, account.lineage.params)
    check_data(repository.folder, account)
    check_model(repository.folder, account)
    check_pipeline(repository, commit)


def check_code(repository: Repository, commit: str, said: str) -> None:
    """Raise DeliveryError when the model was made by other code than is committed."""
    found = code_sha256(repository, commit)
    if said == found:
        return
    code = committed_code(repository, commit)
    here = {path: (repository.folder / path).read_bytes() for path in code_files(repository.folder)}
    for path in sorted(here.keys() - code.keys()):
        raise DeliveryError(
            f"{path} makes the model, but it is not in Git, which is told to pass over it: "
            f"`git add --force {path}`, commit it, and run `make pipeline`"
        )
    for path in sorted(code):
        if stored(here.get(path, b"")) != stored(code[path]):
            raise DeliveryError(
                f"{path} is not what this commit has, although `git status` passes over it: take "
                f"away what changes it in .gitattributes, and commit what is new after `git "
                f"update-index --force-remove {path} && git add --force {path}` and `make pipeline`"
            )
    raise DeliveryError(
        f"the model was made by code {said[:12]}, but this commit has code {found[:12]}: "
        "run `make pipeline` and commit what it writes"
    )


def code_sha256(repository: Repository, commit: str) -> str:
    """Return the SHA-256 of the committed files that make the model. Raises UserError."""
    return sha256(committed_code(repository, commit))


def committed_code(repository: Repository, commit: str) -> dict[str, bytes]:
    """Return the committed files that make the model.

    Raises UserError for a commit that does not say which they are.
    """
    name = f"{PIPELINE} of commit {commit[:12]}"
    named = named_code(parse_yaml(repository.read(commit, PIPELINE) or b"", name), name)
    paths = repository.files(commit, *named) if named else []
    code = [path for path in paths if path in named or path.endswith(".py")]
    return {path: repository.run("cat-file", "blob", f"{commit}:{path}") for path in code}


def check_committed(repository: Repository, commit: str) -> None:
    """Raise DeliveryError unless the pipeline's account is in Git, where reviewers see it."""
    missing = [path for path in IN_GIT if repository.read(commit, path) is None]
    if missing:
        raise DeliveryError(f"{', '.join(missing)} is not in Git: commit what the pipeline wrote")


def check_parameters(repository: Repository, commit: str, used: dict[str, Any]) -> None:
    """Raise DeliveryError when the model was trained with other parameters than are committed.

    The model's are as the pipeline understood them, so the file's are taken for the same types. A
    key that the file leaves out had its default; DVC notices when it was taken away since.
    """
    committed = parse_yaml(repository.read(commit, "params.yaml") or b"{}", "params.yaml")
    known = dict(leaves(used))
    for place, value in leaves({name: committed.get(name) for name in used}):
        if not means(value, was := known.get(place)):
            raise DeliveryError(
                f"the model was made with {place} = {was!r}, but params.yaml says {value!r}: "
                "run `make pipeline` and commit what it writes"
            )


def means(value: Any, was: Any) -> bool:
    """Tell whether a value, read as the type of another one, is that."""
    try:
        return bool(TypeAdapter(type(was)).validate_python(value) == was)
    except ValidationError:
        return False


def check_data(root: Path, account: ModelAccount) -> None:
    """Raise DeliveryError when the data on this machine are not those of the model."""
    said, report = account.lineage.data, account.report
    pairs = {
        "sha256": (said.sha256, report.sha256),
        "test_sha256": (said.test_sha256, report.splits.test.sha256),
    }
    for name, (used, found) in pairs.items():
        if used != found:
            raise DeliveryError(
                f"the model was made with data {used[:12]} ({name}), but data/prepared holds "
                f"{found[:12]}: run `make pipeline`, or `{typed_dvc(root)} checkout` for the "
                "commit's own data"
            )


def check_model(root: Path, account: ModelAccount) -> None:
    """Raise DeliveryError when the model is not the one whose export was checked."""
    path = MODEL / "classifier/1/model.onnx"
    with (root / path).open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    said = account.export.onnx_sha256
    if found != said:
        raise DeliveryError(
            f"{path} is {found[:12]}, but artifacts/export.json is about {said[:12]}: "
            "run `make pipeline`"
        )


def check_pipeline(repository: Repository, commit: str) -> None:
    """Raise DeliveryError when DVC finds the outputs of another commit here."""
    if not repository.files(commit, ".dvc/config"):
        return
    if not repository.files(commit, "dvc.lock"):
        raise DeliveryError("dvc.lock is not in Git: run `make pipeline` and commit what it writes")
    told = parse_json(dvc(repository.folder, "status", "--json"), "what dvc status says")
    if changed := list(check(dict[str, Any], told, "what dvc status says")):
        raise DeliveryError(
            f"the outputs on this machine are not those of this commit (stage {changed[0]}): "
            f"run `{typed_dvc(repository.folder)} checkout` for the commit's own, "
            "or `make pipeline` and commit what it writes"
        )
    check_inputs(repository, commit)


def check_inputs(repository: Repository, commit: str) -> None:
    """Raise DeliveryError when the pipeline read something that only this machine has."""
    stages = parse_lock(repository.read(commit, "dvc.lock")).stages
    made = {out.path for stage in stages.values() for out in stage.outs}
    read = [(name, dep) for name, stage in stages.items() for dep in stage.deps]
    for stage, dep in read:
        path, is_empty = dep.path, dep.size == 0
        kept = is_empty or made & {path, *map(str, PurePosixPath(path).parents)}
        if not kept and not repository.files(commit, path, f"{path}.dvc"):
            raise DeliveryError(
                f"{path}, which the stage {stage} read, is neither in Git nor in DVC, so nobody "
                f"could make the model again: `{adding(repository.folder, path)}`"
            )
