"""The way to production. It uses only files that the pipeline wrote, never `classifier` itself."""
