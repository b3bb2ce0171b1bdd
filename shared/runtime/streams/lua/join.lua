#!lua flags=allow-oom
-- Creates a consumer group at 0 where it is missing. If it was missing, deletes the marker, so that
-- everything is released again: pending entries are lost with their group.
-- KEYS[1] the stream; KEYS[2] the marker of the last release; ARGV group
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if made.err then
  if string.find(made.err, 'BUSYGROUP') then
    return 0
  end
  return made
end
redis.call('DEL', KEYS[2])
return 1
