"""Whose fault an error is, and what follows from it: retries, dead letters, breakers."""
