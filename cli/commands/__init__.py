"""The commands of millstream, a module for each topic; `cli/main.py` puts them together.

What several share is in `cli/`.
"""
