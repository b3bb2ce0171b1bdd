#!lua flags=allow-oom
-- The guarded hand-over: adds the messages and deletes the entry, both or neither, and only for the
-- owner of the entry.
-- KEYS[1] the entry's stream; KEYS[2] the stream that takes the messages
-- ARGV group, consumer, entry id, then h and b of each message
-- Returns 1, or 0 if the lease was lost. allow-oom: at maxmemory a pipeline must still be able to
-- drain.
local owner = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)
if #owner == 0 or owner[1][2] ~= ARGV[2] then
  return 0
end
-- Lua does not roll back. XADD is the first write, so a refused XADD leaves the entry pending.
for i = 4, #ARGV, 2 do
  redis.call('XADD', KEYS[2], '*', 'h', ARGV[i], 'b', ARGV[i + 1])
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
redis.call('XDEL', KEYS[1], ARGV[3])
return 1
