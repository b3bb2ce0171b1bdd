"""From the payload of a request to an accepted document. Pure functions, except for `acceptance`."""
