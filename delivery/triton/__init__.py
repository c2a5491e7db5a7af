"""The Triton server on this machine: installation, server, client, load, proxy."""
