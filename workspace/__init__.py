"""What every program of a project stands on: its folder, its machine, settings, files, reports."""

import os

# What others tell their makers of who runs what, unless it is set before they are imported.
QUIET = {"ORT_DISABLE_TELEMETRY": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
os.environ.update({name: each for name, each in QUIET.items() if name not in os.environ})
