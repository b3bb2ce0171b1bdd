"""What several test suites share: stand-ins for servers, with faults on demand."""
