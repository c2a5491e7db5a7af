"""A commit's manifests as Argo CD renders them, and the server that they describe."""
