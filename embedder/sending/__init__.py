"""Requests to TEI servers: how large, how many, to which server, and which text is at fault when
one fails.
"""
