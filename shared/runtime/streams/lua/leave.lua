#!lua flags=allow-oom
-- Deletes a consumer, but never one with pending entries: XGROUP DELCONSUMER would destroy them.
-- KEYS the streams; ARGV group, consumer
local left = 0
for _, stream in ipairs(KEYS) do
  local pending = redis.pcall('XPENDING', stream, ARGV[1], '-', '+', 1, ARGV[2])
  if not pending.err and #pending == 0 then
    redis.call('XGROUP', 'DELCONSUMER', stream, ARGV[1], ARGV[2])
    left = left + 1
  end
end
return left
