#!lua flags=no-writes
-- How long the oldest entry of each stream has been there, in milliseconds of Redis' own clock; -1
-- for an empty stream. Only the age leaves Redis: an entry may be megabytes.
-- KEYS the streams
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ages = {}
for i, stream in ipairs(KEYS) do
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  ages[i] = first and math.max(0, now - tonumber(string.match(first[1], '^%d+'))) or -1
end
return ages
