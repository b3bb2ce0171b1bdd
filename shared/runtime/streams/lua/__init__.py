"""The atomic scripts; each file says what its keys and arguments are."""

from importlib import resources


def script(name: str) -> str:
    """The source of `name`.lua."""
    return (resources.files(__package__) / f"{name}.lua").read_text()
