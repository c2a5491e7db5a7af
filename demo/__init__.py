"""`make demo`: the whole loop on one machine, told by a report."""
