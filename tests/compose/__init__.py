"""compose.yaml and the Dockerfile on a Docker engine: `make compose-test`. Not a part of the test suite."""
