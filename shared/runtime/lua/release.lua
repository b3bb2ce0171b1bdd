#!lua flags=allow-oom
-- Gives an entry back without penalty: at once claimable by others, its delivery count one lower.
-- KEYS[1] the stream; ARGV group, consumer, entry id, idle milliseconds from which others claim
local owner = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)
if #owner == 0 or owner[1][2] ~= ARGV[2] then
  return 0
end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'IDLE', ARGV[4] + 1, 'RETRYCOUNT', owner[1][4] - 1, 'JUSTID')
return 1
