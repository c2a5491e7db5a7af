"""Package the exported model as an image: the same content gives the same digest anywhere."""

from pathlib import Path, PurePosixPath

from delivery.model.pipeline_outputs import (
    ABOUT,
    BEHAVIOUR,
    IN_IMAGE,
    MODEL,
    PLOTS,
    PREDICTIONS,
    require_outputs,
)
from delivery.oci.image import CONFIG, LAYER, config_content, digest_of, image_content, tag_of
from delivery.oci.layer import write_layer
from delivery.oci.layout import Layout

LOCAL = Path(".local/registry")  # images are built here, also those for another registry


def package(root: Path, version: int, layout: Layout) -> str:
    """Build the image of the model in `root` and list it in the layout; return its digest.

    Memory use does not depend on the model's size. Raises DeliveryError.
    """
    files = image_files(root, version)
    layer = layout.add(LAYER, lambda stream: write_layer(files, stream))
    layout.add_bytes(CONFIG, config_content(layer))
    content = image_content(layer, str(version))
    layout.write_manifest(content, tag_of(version, digest_of(content)))
    return digest_of(content)


def image_files(root: Path, version: int) -> dict[str, Path]:
    """Map names in the image to the pipeline's files. Raises DeliveryError."""
    require_outputs(root)
    model = {path.relative_to(root / MODEL): path for path in (root / MODEL).rglob("*")}
    files = {_released(name, version): path for name, path in model.items() if path.is_file()}
    about = ABOUT | PREDICTIONS | BEHAVIOUR | {str(path): path for path in PLOTS}
    found = {name: root / path for name, path in about.items() if (root / path).is_file()}
    return files | {f"{IN_IMAGE}/{name}": path for name, path in found.items()}


def _released(name: Path, version: int) -> str:
    """Exchange the pipeline's version directory, always 1, for the release's."""
    if name.parts[:2] == ("classifier", "1"):
        return str(PurePosixPath("classifier", str(version), *name.parts[2:]))
    return name.as_posix()
