"""Stop when the vendored folders did not come along; take away what tools left in the template."""

import shutil
import sys
from pathlib import Path

for folder in ("infra/modules", "argocd/base", "src/delivery", "src/workspace"):
    if not Path(folder).is_dir():
        sys.exit(
            f"{folder} is not a folder: this copy of the template lost its symbolic links, as zip "
            "archives do; generate from a git clone or from the repository's address instead."
        )

# A clone in which somebody worked holds caches, which cookiecutter copies with the rest.
CACHES = (".local", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".terraform")
for cache in CACHES:
    for folder in list(Path().rglob(cache)):
        shutil.rmtree(folder, ignore_errors=True)
