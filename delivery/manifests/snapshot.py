"""The manifests of a commit as files, apart from the working tree."""

import io
import shutil
import tarfile
from pathlib import Path

from delivery.git import Repository

MANIFESTS = "argocd"


def snapshot(repository: Repository, commit: str, folder: Path) -> Path:
    """Write the manifests of a commit into `folder`, in place of what was there; return it.

    Raises GitError when the commit has none.
    """
    shutil.rmtree(folder, ignore_errors=True)
    archive = repository.run("archive", "--format=tar", commit, MANIFESTS)
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder
