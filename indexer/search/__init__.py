"""Search: the API, the two sides of a query, fusion, and what is visible."""
