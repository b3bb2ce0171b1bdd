"""The parts of `make compose-test` that decide, without a Docker engine."""
