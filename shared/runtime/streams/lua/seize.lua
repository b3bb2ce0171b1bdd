#!lua flags=allow-oom
-- Takes a pending entry for an operator from any holder, without counting a delivery.
-- The delivery to a worker is taken back, since the worker did not crash; an operator's was never
-- counted.
-- KEYS[1] the stream; KEYS[2] the marker of the last release
-- ARGV group, consumer, entry id, idle milliseconds, the expected holder ('' for any), the prefix
--   of operators' names
-- Returns holder and deliveries so far; only the holder if it is not the expected one; nothing if
-- the entry is not pending.
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
-- deleted from the stream by hand, which no worker will notice any more: release all again
if #taken == 0 then
  redis.call('DEL', KEYS[2])
  return {}
end
return {holder, deliveries}
