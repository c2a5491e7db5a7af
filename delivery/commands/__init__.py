"""One file for each make target; it imports the rest, and nothing imports it."""
