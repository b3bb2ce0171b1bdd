#!lua flags=no-writes
-- Reads the field `h` of entries. Bodies stay in Redis: they may be megabytes.
-- KEYS[1] the stream; ARGV entry ids
-- Returns the header of each entry, false where the entry or the field is missing.
local headers = {}
for i, id in ipairs(ARGV) do
  headers[i] = false
  local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
  local fields = entry and entry[2] or {}
  for j = 1, #fields, 2 do
    if fields[j] == 'h' then headers[i] = fields[j + 1] end
  end
end
return headers
