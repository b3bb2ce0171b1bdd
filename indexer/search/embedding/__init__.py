"""From the text of a query to its vector: servers, their choice, a cache. Not the search by it."""
