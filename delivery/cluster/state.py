"""Where a checkout keeps what belongs to its cluster."""

from pathlib import Path

FOLDER = Path(".local/cluster")
SETTINGS = FOLDER / "kubeconfig"
APPLIED = FOLDER / "applications.json"
GIT_SERVER = FOLDER / "git-server.json"
GIT_LOG = Path(".local/logs/git-server.log")
