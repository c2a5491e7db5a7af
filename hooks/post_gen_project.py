"""Stop when the vendored folders did not come along, instead of leaving a broken project."""

import sys
from pathlib import Path

for folder in ("infra/modules", "argocd/base"):
    if not Path(folder).is_dir():
        sys.exit(
            f"{folder} is not a folder: this copy of the template lost its symbolic links, as zip "
            "archives do; generate from a git clone or from the repository's address instead."
        )
