#!lua flags=allow-oom
-- Changes how often an entry counts as delivered, and how long it counts as idle, where this
-- consumer still owns it.
-- KEYS[1] the stream; ARGV group, consumer, entry id, change of the count, idle milliseconds
-- Returns 1, or 0 if another consumer owns the entry.
-- NOGROUP: the lease is lost too
local owner = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)
if owner.err or #owner == 0 or owner[1][2] ~= ARGV[2] then
  return 0
end
local count = owner[1][4] + ARGV[4]
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3],
  'IDLE', ARGV[5], 'RETRYCOUNT', count, 'JUSTID')
return 1
