"""Servers that take as long as they are told to, and count what they are asked for: the truth of
the benchmarks.
"""
