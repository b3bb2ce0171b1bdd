"""The migrations as files; what they do is shown by every test with a database."""

from shared.jobs.migrate import migrations


def test_migrations_are_numbered_without_gaps_or_doubles() -> None:
    """Only the highest number in the database is looked at: one that comes late with a lower one never runs."""
    versions = [migration.version for migration in migrations()]
    assert versions == list(range(1, len(versions) + 1))
