"""Peers, each as its documentation shows it: scripts for an environment of their own.

Each gets the same chunks, embeds them with the same TEI, stores them in the same Qdrant, and prints
one line of JSON, `{"seconds": .., "cpu_s": ..}`. The stand-ins count what was stored.
"""
