#!lua
-- Adds a release of the dispatcher to the streams once: the marker has the number of the last
-- release.
-- KEYS[1] the marker; KEYS[2] the owner; KEYS[3..] the stream of each message
-- ARGV previous release, this release, deployment id, then h of each message
-- Returns 'done', 'foreign' if the keys belong to another deployment, or the marker that it found
-- instead of the previous release.
local owner = redis.call('GET', KEYS[2])
if owner and owner ~= ARGV[3] then
  return 'foreign'
end
local marker = redis.call('GET', KEYS[1]) or '0'
if marker == ARGV[2] then
  return 'done'
end
-- A number below the marker was drawn before another dispatcher's turn: its items would never count
-- as lost.
if marker ~= ARGV[1] or tonumber(ARGV[2]) <= tonumber(marker) then
  return marker
end
for i = 3, #KEYS do
  redis.call('XADD', KEYS[i], '*', 'h', ARGV[i + 1], 'b', '')
end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[3])
return 'done'
