"""Tests on a real cluster, for `make test-cluster`."""
