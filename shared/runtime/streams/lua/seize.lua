#!lua flags=allow-oom
-- Takes a pending entry for an operator, whoever holds it, without counting a delivery.
-- What is taken from a worker takes its delivery back, since it did not die; what an operator holds has none to give.
-- KEYS[1] the stream; KEYS[2] the marker of the last release
-- ARGV group, consumer, entry id, idle milliseconds, the holder that must be ('' for any), how operators' names begin
-- Returns holder and deliveries until now; only the holder if it is another one; nothing if the entry is not pending.
local owner = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)
if owner.err or #owner == 0 then  -- NOGROUP: nothing is pending either
  return {}
end
local holder, deliveries = owner[1][2], owner[1][4]
if ARGV[5] ~= '' and ARGV[5] ~= holder then
  return {holder}
end
local is_operator = string.sub(holder, 1, #ARGV[6]) == ARGV[6]
local count = is_operator and deliveries or math.max(0, deliveries - 1)
local taken = redis.call(
  'XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'IDLE', ARGV[4], 'RETRYCOUNT', count, 'JUSTID')
if #taken == 0 then  -- deleted from the stream by hand; with it goes what would tell the workers: release all again
  redis.call('DEL', KEYS[2])
  return {}
end
return {holder, deliveries}
