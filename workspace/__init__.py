"""What every program of a project stands on: its folder, its machine, settings, files, reports."""
