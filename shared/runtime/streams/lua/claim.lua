#!lua flags=allow-oom
-- Claims the keys of the pipeline for a deployment, if no deployment has them.
-- KEYS[1] the owner; ARGV deployment id
-- Returns the id of the deployment that has them.
local owner = redis.call('GET', KEYS[1])
if owner then
  return owner
end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
