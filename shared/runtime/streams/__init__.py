"""A stage as a member of its consumer group: reading, leases, hand-over, gates, the Lua scripts."""
