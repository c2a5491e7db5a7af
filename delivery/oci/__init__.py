"""Images: what one is, a layout on disk, registries, signatures."""
