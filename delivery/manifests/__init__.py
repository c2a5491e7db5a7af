"""A commit's manifests as Argo CD renders them, and what they say of the server's pod."""
