"""A cluster to try a project in: made here or given, pointed at the remote, taken away."""
