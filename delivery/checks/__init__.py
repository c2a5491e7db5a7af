"""Pull requests judged by what they change: rules, gate, manifests, rehearsal, one report."""
