"""compose.yaml and the Dockerfile on a Docker engine: `make compose-test`, not `make test`."""
