#!lua flags=allow-oom
-- Renews leases: sets the idle time of entries to zero where this consumer still owns them.
-- KEYS the streams; ARGV group, consumer, then pairs of key index and entry id
-- Returns which of the pairs (from 0) it no longer owns.
local lost = {}
for i = 3, #ARGV, 2 do
  local stream, id = KEYS[tonumber(ARGV[i])], ARGV[i + 1]
  -- NOGROUP: the lease is lost too
  local owner = redis.pcall('XPENDING', stream, ARGV[1], id, id, 1)
  if owner.err or #owner == 0 or owner[1][2] ~= ARGV[2] then
    lost[#lost + 1] = (i - 3) / 2
  else
    redis.call('XCLAIM', stream, ARGV[1], ARGV[2], 0, id, 'JUSTID')
  end
end
return lost
