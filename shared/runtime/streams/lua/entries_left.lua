#!lua flags=no-writes
-- Counts the entries that ever left each stream.
-- A script, since the reply of XINFO STREAM has the first and the last entry, which may be
-- megabytes of vectors.
-- KEYS the streams
local left = {}
for i, stream in ipairs(KEYS) do
  left[i] = 0
  if redis.call('EXISTS', stream) == 1 then
    local info = redis.call('XINFO', 'STREAM', stream)
    local fields = {}
    for j = 1, #info, 2 do fields[info[j]] = info[j + 1] end
    left[i] = fields['entries-added'] - fields['length']
  end
end
return left
