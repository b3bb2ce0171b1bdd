#!lua
-- Stores what a worker waits for, or removes its report, and drops the reports of workers that
-- stopped renewing theirs. A report older than its lifetime belongs to a dead worker. Its time is
-- Redis' own: workers' clocks may differ. The difference counts in both directions, since Redis'
-- clock may be set back.
-- KEYS the hash; ARGV consumer, report (JSON, or empty), lifetime in ms
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local reports = redis.call('HGETALL', KEYS[1])
for i = 1, #reports, 2 do
  local stored = tonumber(string.match(reports[i + 1], '^%d+')) or 0
  if math.abs(now - stored) > tonumber(ARGV[3]) then
    redis.call('HDEL', KEYS[1], reports[i])
  end
end
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now) .. ' ' .. ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return redis.status_reply('OK')
