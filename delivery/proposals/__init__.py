"""Git: release files and their history, the gate, the branches that propose a change."""
